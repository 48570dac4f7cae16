// Every row of the table of transports x token split x cut x layout x placement of experts x dtype x tokens, on one
// small world of four ranks on two nodes, run over any communicator and checked against the definition in double
// precision, its bytes against a count by tokens. Seeds whose routing roundings could change are passed over.
#pragma once

#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>
#include <vector>

#include "tests/support/layer_cases.hpp"

namespace topomoe::testing {

struct MatrixCase {
  LayerCase layer;
  std::string_view transport;
  ScheduleRequest request;
};
constexpr int kMatrixRanks = 4;
std::vector<MatrixCase> layer_matrix();
std::string describe(const MatrixCase& m);

// What cases must give. Many of them agree on that: it is worked out once. Thread-safe.
class Expectations {
 public:
  const ExpectedResult& of(const MatrixCase& m);

 private:
  std::mutex mutex_;
  std::map<std::string, std::unique_ptr<ExpectedResult>> known_;
};

// Collective: forward and backward of all cases, one after another. What is off as this rank sees it, one line each;
// gradients of weights, which all ranks share, as rank 0 does.
std::vector<std::string> check_layers(const std::vector<MatrixCase>& cases, Expectations& expected,
                                      Communicator& communicator);

}  // namespace topomoe::testing
