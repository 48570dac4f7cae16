/* Runs the MoE layer of a plan.json, forward, on two threads: the C interface is all that it knows. */
#include <math.h>
#include <pthread.h>
#include <stdio.h>
#include <topomoe/topomoe.h>

enum { HIDDEN = 64, FFN = 32, EXPERTS = 4, LOCAL = 2, ROWS = 8 };

static topomoe_plan* plan;
static topomoe_communicator* ranks[2];
static float x[ROWS * HIDDEN], router[EXPERTS * HIDDEN], matrix[LOCAL * FFN * HIDDEN]; /* the same on both */

static void fill(float* values, int count, float value) {
  while (count-- > 0) values[count] = value;
}

static topomoe_status run(topomoe_communicator* rank) {
  float y[ROWS * HIDDEN];
  const double g = 0.32, expected = 0.32 * g / (1 + exp(-g)) * g; /* as in embed.cpp */
  topomoe_device* device = NULL;
  topomoe_layer* layer = NULL;
  topomoe_weights weights = TOPOMOE_WEIGHTS_INIT;
  topomoe_status status = topomoe_device_create(NULL, &device);
  int i;
  weights.router = router;
  weights.gate = weights.up = weights.down = matrix;
  if (status == TOPOMOE_OK) status = topomoe_layer_create(plan, rank, device, NULL, &layer);
  topomoe_device_free(device); /* the layer keeps what it needs */
  if (status == TOPOMOE_OK) status = topomoe_forward(layer, x, ROWS, y, &weights, NULL);
  topomoe_layer_free(layer);
  for (i = 0; status == TOPOMOE_OK && i < ROWS * HIDDEN; ++i)
    if (!(fabs(y[i] - expected) < 1e-6)) {
      fprintf(stderr, "y[%d] is %g, not %g\n", i, y[i], expected);
      status = TOPOMOE_INTERNAL_ERROR;
    }
  return status;
}

static void* thread(void* rank) {
  const topomoe_status status = run(rank);
  if (status == TOPOMOE_OK) return NULL;
  fprintf(stderr, "%s: %s\n", topomoe_status_name(status), topomoe_last_error());
  topomoe_communicator_abort(rank, "this rank failed");
  return rank;
}

int main(int argc, char** argv) {
  pthread_t other;
  void *mine, *theirs;
  if (topomoe_abi_version() != TOPOMOE_ABI_VERSION) return 1;
  if (argc != 2 || topomoe_plan_read_file(argv[1], &plan) != TOPOMOE_OK ||
      topomoe_inproc_world(2, ranks) != TOPOMOE_OK) {
    fprintf(stderr, "from_c PLAN: %s\n", topomoe_last_error());
    return 1;
  }
  fill(x, ROWS * HIDDEN, 0.5F);
  fill(router, EXPERTS * HIDDEN, 0.1F);
  fill(matrix, LOCAL * FFN * HIDDEN, 0.01F);
  if (pthread_create(&other, NULL, thread, ranks[1]) != 0) return 1;
  mine = thread(ranks[0]);
  pthread_join(other, &theirs);
  topomoe_plan_free(plan);
  topomoe_communicator_free(ranks[0]);
  topomoe_communicator_free(ranks[1]);
  if (mine != NULL || theirs != NULL) return 1;
  printf("topomoe %s: both ranks agree with the formula\n", topomoe_version());
  return 0;
}
