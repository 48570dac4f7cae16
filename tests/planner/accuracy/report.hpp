// Predicted against measured, every pair kept: medians and 90th percentiles by table and group, and targets that
// must be met. Nothing is left out of a median; `-v` prints every pair.
#pragma once

#include <fstream>
#include <string>
#include <vector>

namespace topomoe::accuracy {

struct Pair {
  std::string group;                                                  // "h100_sxm alltoall 8 GPUs"
  std::string what;                                                   // "1048576 B"
  double predicted_us = 0, measured_us = 0, low_us = 0, high_us = 0;  // low, high: 0 where the prediction has no band
};

double error_of(const Pair&);                           // |predicted / measured - 1|
double quantile(std::vector<double> values, double q);  // linear between order statistics; 0 for none

class Report {
 public:
  // every_pair: print them too. pairs_file: all of them as CSV; empty: none.
  Report(bool every_pair, const std::string& pairs_file);
  // Prints the table by group. target: the median over all its pairs must not exceed it; 0: nothing is promised.
  void table(const std::string& title, double target, const std::vector<Pair>& pairs);
  void skipped(const std::string& title, const std::string& why);
  void note(const std::string& line);
  // A promise that is no median: prints the line as met or MISSED.
  void require(bool met, const std::string& line);
  bool missed() const { return missed_; }
  bool compared() const { return compared_; }  // any pair at all

 private:
  bool every_pair_, missed_ = false, compared_ = false;
  std::ofstream pairs_;
};

}  // namespace topomoe::accuracy
