/* Nothing before it: topomoe.h includes what it needs. */
#include "topomoe/topomoe.h"
