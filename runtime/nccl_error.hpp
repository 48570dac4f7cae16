// What NCCL refused to do. A transport that fails later, in flight, is a TransportError.
#pragma once

#include "topomoe/error.hpp"

namespace topomoe {

class NcclError : public Error {
 public:
  using Error::Error;
};

}  // namespace topomoe
