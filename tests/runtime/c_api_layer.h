/* What c_api_layer.c, compiled as C99, offers to the test in C++. */
#ifndef TESTS_RUNTIME_C_API_LAYER_H
#define TESTS_RUNTIME_C_API_LAYER_H

#include "topomoe/topomoe.h"

#ifdef __cplusplus
extern "C" {
#endif

struct c_layer {
  const void *x, *dy;
  void *y, *dx;
  int64_t rows;
  const float* router;
  const void *gate, *up, *down;
  float *drouter, *dgate, *dup, *ddown;
  int32_t dtype;
};
/* Forward and backward of the plan's layer, as a program in C writes them. Frees all that it made. */
topomoe_status run_c_layer(const char* plan, size_t bytes, topomoe_communicator* ranks, const struct c_layer* t);

#ifdef __cplusplus
}
#endif
#endif
