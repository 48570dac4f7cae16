#include "topomoe/job.hpp"

#include "planner/plan/json.hpp"
#include "planner/plan/names.hpp"

namespace topomoe {

namespace {
constexpr NameTable<Phase, 3> kPhases = {
    {{Phase::train, "train"}, {Phase::prefill, "prefill"}, {Phase::decode, "decode"}}};
constexpr NameTable<Recompute, 4> kRecomputes = {{{Recompute::none, "none"},
                                                  {Recompute::selective, "selective"},
                                                  {Recompute::full, "full"},
                                                  {Recompute::automatic, "auto"}}};
constexpr NameTable<SequenceParallel, 3> kSequenceParallels = {
    {{SequenceParallel::automatic, "auto"}, {SequenceParallel::off, "off"}, {SequenceParallel::on, "on"}}};
constexpr NameTable<DType, 2> kDTypes = {{{DType::f32, "f32"}, {DType::bf16, "bf16"}}};
constexpr NameTable<DispatchDType, 2> kDispatchDTypes = {
    {{DispatchDType::as_job, "as_job"}, {DispatchDType::fp8, "fp8"}}};
}  // namespace

std::string_view to_string(Phase v) { return name_of(kPhases, v); }
std::string_view to_string(Recompute v) { return name_of(kRecomputes, v); }
std::string_view to_string(SequenceParallel v) { return name_of(kSequenceParallels, v); }
std::string_view to_string(DType v) { return name_of(kDTypes, v); }
std::string_view to_string(DispatchDType v) { return name_of(kDispatchDTypes, v); }
Phase phase_from(std::string_view text, std::string_view field) { return value_of(kPhases, text, field); }
Recompute recompute_from(std::string_view text, std::string_view field) { return value_of(kRecomputes, text, field); }
SequenceParallel sequence_parallel_from(std::string_view text, std::string_view field) {
  return value_of(kSequenceParallels, text, field);
}
DType dtype_from(std::string_view text, std::string_view field) { return value_of(kDTypes, text, field); }
DispatchDType dispatch_dtype_from(std::string_view text, std::string_view field) {
  return value_of(kDispatchDTypes, text, field);
}

double tokens_per_micro_batch(const Job& job, int cp) {
  return job.phase == Phase::decode ? job.micro_batch : 1.0 * job.micro_batch * job.sequence / cp;
}

double tokens_per_step(const Job& job) {
  return 1.0 * job.global_batch * (job.phase == Phase::decode ? 1 : job.sequence);
}

int micro_batches(const Job& job, int dp) { return static_cast<int>(job.global_batch / (1LL * dp * job.micro_batch)); }

void check(const Job& job, std::string_view where) {
  const auto fail = [&](const char* field, const std::string& value, const std::string& hint) {
    throw InvalidInput(std::string(where) + ": " + field, value, hint);
  };
  if (job.sequence <= 0) fail("sequence", std::to_string(job.sequence), "must be positive");
  if (job.micro_batch <= 0) fail("micro_batch", std::to_string(job.micro_batch), "must be positive");
  if (job.global_batch <= 0) fail("global_batch", std::to_string(job.global_batch), "must be positive");
  if (job.global_batch % job.micro_batch != 0) {
    const int nearest = std::max(1, job.global_batch / job.micro_batch) * job.micro_batch;
    fail(
        "global_batch", std::to_string(job.global_batch),
        "must be a multiple of micro_batch = " + std::to_string(job.micro_batch) + ", e.g. " + std::to_string(nearest));
  }
  if (!(job.capacity_factor >= 0 && job.capacity_factor <= 1e6))
    fail("capacity_factor", std::to_string(job.capacity_factor), "must be positive, or 0 to drop no token");
  if (job.recompute == Recompute::automatic)
    fail("recompute", "auto", "none, selective or full: only a request may leave it open");
}

void check_request(const Job& job, std::string_view where) {
  Job decided = job;
  if (job.micro_batch == 0) decided.micro_batch = 1;
  if (job.recompute == Recompute::automatic) decided.recompute = Recompute::none;
  check(decided, where);
}

ordered_json to_json(const Job& job) {
  ordered_json out = {{"phase", to_string(job.phase)},
                      {"sequence", job.sequence},
                      {"micro_batch", job.micro_batch},
                      {"global_batch", job.global_batch},
                      {"dtype", to_string(job.dtype)},
                      {"recompute", to_string(job.recompute)},
                      {"sequence_parallel", to_string(job.sequence_parallel)},
                      {"capacity_factor", job.capacity_factor}};
  if (job.dispatch_dtype != DispatchDType::as_job) out["dispatch_dtype"] = to_string(job.dispatch_dtype);
  return out;
}

Job job_from_json(const ordered_json& json, const std::string& where) {
  ObjectReader in(json, where);
  Job job;
  job.phase = phase_from(in.text("phase"), in.field("phase"));
  job.sequence = in.integer("sequence", 1, kMaxTokens);
  job.micro_batch = in.integer("micro_batch", 1, kMaxTokens);
  job.global_batch = in.integer("global_batch", 1, kMaxTokens);
  job.dtype = dtype_from(in.text("dtype"), in.field("dtype"));
  job.recompute = recompute_from(in.text("recompute"), in.field("recompute"));
  job.sequence_parallel = sequence_parallel_from(in.text("sequence_parallel"), in.field("sequence_parallel"));
  job.capacity_factor = in.number("capacity_factor", 0, 1e6);
  if (in.has("dispatch_dtype"))
    job.dispatch_dtype = dispatch_dtype_from(in.text("dispatch_dtype"), in.field("dispatch_dtype"));
  in.finish();
  check(job, where);
  return job;
}

}  // namespace topomoe
