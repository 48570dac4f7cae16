/* A planned MoE layer in C: forward, backward, and one step of gradient descent that makes its loss fall.
 *
 *   topomoe plan --cluster C --model M -o plan.json
 *   cc layer.c $(pkg-config --cflags --libs topomoe-c) -o layer
 *   torchrun --no-python --nproc-per-node 4 ./layer plan.json      (or: launch.py 4 ./layer plan.json)
 *
 * Ranks are plain processes that find each other by the variables of their launcher. A program with MPI takes
 * topomoe_mpi_communicator() instead, one whose ranks are threads topomoe_inproc_world(). */
#include <stdio.h>
#include <stdlib.h>
#include <topomoe/topomoe.h>

enum { HIDDEN = 16, ROWS = 12 };

static void check(topomoe_status status) {
  if (status == TOPOMOE_OK) return;
  fprintf(stderr, "layer: %s: %s\n", topomoe_status_name(status), topomoe_last_error());
  exit(1);
}

/* The same on every rank for the same `stream`. */
static float* noise(size_t count, unsigned stream, float scale) {
  float* values = malloc((count + 1) * sizeof *values);
  unsigned x = stream * 2654435761u + 1;
  size_t i;
  if (values == NULL) exit(3);
  for (i = 0; i < count; ++i) {
    x ^= x << 13, x ^= x >> 17, x ^= x << 5;
    values[i] = scale * ((float)(x % 2001) / 1000 - 1);
  }
  return values;
}

static float* zeros(size_t count) {
  float* values = calloc(count + 1, sizeof *values);
  if (values == NULL) exit(3);
  return values;
}

static double half_square(const float* y, size_t count) {
  double sum = 0;
  size_t i;
  for (i = 0; i < count; ++i) sum += 0.5 * y[i] * y[i];
  return sum;
}

int main(int argc, char** argv) {
  topomoe_plan* plan = NULL;
  topomoe_communicator* ranks = NULL;
  topomoe_device* device = NULL;
  topomoe_layer* layer = NULL;
  topomoe_handle* handle = NULL;
  topomoe_plan_info info = TOPOMOE_PLAN_INFO_INIT;
  topomoe_layer_config config = TOPOMOE_LAYER_CONFIG_INIT;
  topomoe_weights weights = TOPOMOE_WEIGHTS_INIT;
  topomoe_gradients gradients = TOPOMOE_GRADIENTS_INIT;
  int32_t rank = 0, held = 0;
  int64_t ffn = 0;
  size_t i, matrices = 0;
  float *x, *y, *dx, *router, *gate, *up, *down, *ddown;
  double before, after;
  if (argc != 2) return 2;

  check(topomoe_plan_read_file(argv[1], &plan));
  check(topomoe_plan_get_info(plan, 0, &info));
  if (info.ep * info.etp != info.world || info.replicated || info.shared_ffn > 0) {
    fprintf(stderr, "layer: plan with EP * ETP = world, no replicas, no shared expert: no gradients are summed here\n");
    return 2;
  }
  check(topomoe_tcp_communicator(NULL, &ranks)); /* null: from the environment */
  check(topomoe_communicator_rank(ranks, &rank, NULL));
  check(topomoe_device_create(NULL, &device));
  config.hidden = HIDDEN, config.ffn = ffn = 8 * info.etp, config.dtype = TOPOMOE_F32; /* the plan's own are larger */
  check(topomoe_layer_create(plan, ranks, device, &config, &layer));

  /* The router is the same everywhere; each rank has its own experts. Ranks of a TP group hold the same tokens. */
  check(topomoe_plan_held_experts(plan, 0, rank, NULL, 0, &held));
  matrices = (size_t)held * (size_t)(ffn / info.etp) * HIDDEN;
  x = noise(ROWS * HIDDEN, 1 + (unsigned)(rank / info.tp), 1), y = zeros(ROWS * HIDDEN), dx = zeros(ROWS * HIDDEN);
  router = noise((size_t)info.experts * HIDDEN, 1000, 1);
  gate = noise(matrices, 2000 + (unsigned)rank, 0.5F), up = noise(matrices, 3000 + (unsigned)rank, 0.5F);
  down = noise(matrices, 4000 + (unsigned)rank, 0.5F), ddown = zeros(matrices);
  weights.router = router, weights.gate = gate, weights.up = up, weights.down = down;
  gradients.gate = zeros(matrices), gradients.up = zeros(matrices), gradients.down = ddown;

  /* loss = |y|^2 / 2, whose gradient is y. */
  check(topomoe_forward(layer, x, ROWS, y, &weights, &handle));
  before = half_square(y, ROWS * HIDDEN);
  check(topomoe_backward(layer, handle, y, dx, &weights, &gradients));
  topomoe_handle_free(handle);
  for (i = 0; i < matrices; ++i) down[i] -= 0.05F * ddown[i];
  check(topomoe_forward(layer, x, ROWS, y, &weights, NULL));
  after = half_square(y, ROWS * HIDDEN);
  printf("rank %d: loss %.4f, after one step %.4f\n", (int)rank, before, after);

  free(x), free(y), free(dx), free(router), free(gate), free(up), free(down), free(ddown);
  free(gradients.gate), free(gradients.up);
  topomoe_layer_free(layer);
  topomoe_device_free(device);
  topomoe_communicator_free(ranks);
  topomoe_plan_free(plan);
  return after < before ? 0 : 1;
}
