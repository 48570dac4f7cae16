#include "tests/runtime/c_api_layer.h"

topomoe_status run_c_layer(const char* plan_text, size_t bytes, topomoe_communicator* ranks, const struct c_layer* t) {
  topomoe_plan* plan = NULL;
  topomoe_device* device = NULL;
  topomoe_layer* layer = NULL;
  topomoe_handle* handle = NULL;
  topomoe_layer_config config = TOPOMOE_LAYER_CONFIG_INIT;
  topomoe_weights weights = TOPOMOE_WEIGHTS_INIT;
  topomoe_gradients gradients = TOPOMOE_GRADIENTS_INIT;
  topomoe_status status = topomoe_plan_read(plan_text, bytes, "planned in the test", &plan);
  config.dtype = t->dtype;
  weights.router = t->router, weights.gate = t->gate, weights.up = t->up, weights.down = t->down;
  gradients.router = t->drouter, gradients.gate = t->dgate, gradients.up = t->dup, gradients.down = t->ddown;
  if (status == TOPOMOE_OK) status = topomoe_device_create(NULL, &device);
  if (status == TOPOMOE_OK) status = topomoe_layer_create(plan, ranks, device, &config, &layer);
  topomoe_plan_free(plan); /* the layer keeps what it needs */
  topomoe_device_free(device);
  if (status == TOPOMOE_OK) status = topomoe_forward(layer, t->x, t->rows, t->y, &weights, &handle);
  if (status == TOPOMOE_OK) status = topomoe_backward(layer, handle, t->dy, t->dx, &weights, &gradients);
  topomoe_handle_free(handle);
  topomoe_layer_free(layer);
  return status;
}
