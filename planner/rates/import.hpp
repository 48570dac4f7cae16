// Measurements of others into calibrations: one function a format, and one that tells them apart by content.
//
//   nccl-tests, its table of text and its JSON (-J)       one curve: operation and number of ranks
//   nvbandwidth, its JSON (-j)                            figures "nvbandwidth.<testcase>_GBps"
//   tables of ../shared/measurements (CSV by columns)     NCCL, DeepEP, GEMM, MoE kernel: a calibration a system
// Readers are tolerant where writers are known to be odd (booleans and numbers as strings, "nan", "N/A"): cells that
// are no measurement are left out; a file without a single one is refused.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "topomoe/calibration.hpp"

namespace topomoe {

struct ImportRequest {
  std::string system;          // which of a table's systems; empty: there is one
  std::vector<int> gpus;       // only these numbers of GPUs; empty: all
  std::string operation;       // of nccl-tests output that does not say which test it is; empty: it says so
  CalibrationMachine machine;  // where it was measured; nccl-tests needs it, tables know their own
  std::string name;            // of the calibration; empty: from the file
  std::string source;          // attribution; empty: "imported from <where>"
};

// Throws InvalidInput{where..., value, way out}.
Calibration import_measurements(std::string_view text, const std::string& where, const ImportRequest&);

// One of them each. A text that is not of the format is refused.
Calibration import_nccl_tests_text(std::string_view text, const std::string& where, const ImportRequest&);
Calibration import_nccl_tests_json(std::string_view text, const std::string& where, const ImportRequest&);
Calibration import_nvbandwidth_json(std::string_view text, const std::string& where, const ImportRequest&);
Calibration import_table(std::string_view csv, const std::string& where, const ImportRequest&);

// Curves and figures of `more` beside those of `base`; a curve of the same operation and shape is replaced.
void merge_into(Calibration& base, const Calibration& more);

// The machines of ../shared/measurements by their names there ("h100_sxm"); name empty where not known.
CalibrationMachine machine_of_system(std::string_view system);

}  // namespace topomoe
