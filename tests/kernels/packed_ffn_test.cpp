// Experts with packed weights, on every instruction set that this machine has a part of: agreement with double over
// random shapes, and bits that do not tell how many rows or threads there were.
#include "kernels/packed_ffn.hpp"

#include <numeric>
#include <string>

#include "tests/kernels/ffn_reference.hpp"
#include "tests/kernels/on_device.hpp"
#include "topomoe/device_cpu.hpp"

namespace topomoe::test {
namespace {

using kernels::CpuIsa;

std::vector<CpuIsa> instruction_sets() {
  std::vector<CpuIsa> out;
  for (int i = 0; i <= static_cast<int>(kernels::best_isa()); ++i) out.push_back(static_cast<CpuIsa>(i));
  return out;
}

// A tensor in memory of exactly its size, for sanitizers to guard.
class HostTensor {
 public:
  HostTensor(const Floats& values, DType dtype) : dtype_(dtype), bytes_(values.size() * size_of(dtype)) {
    kernels::with_element(dtype, [&]<class T>(T) {
      for (std::size_t i = 0; i < values.size(); ++i)
        reinterpret_cast<T*>(bytes_.data())[i] = kernels::from_float<T>(values[i]);
    });
  }
  void* data() { return bytes_.data(); }
  const void* data() const { return bytes_.data(); }
  const std::byte* row(std::int64_t row, std::int64_t columns) const {
    return &bytes_[at(row * columns) * size_of(dtype_)];
  }
  bool operator==(const HostTensor& other) const { return bytes_ == other.bytes_; }
  Floats read() const {
    Floats out(bytes_.size() / size_of(dtype_));
    kernels::with_element(dtype_, [&]<class T>(T) {
      for (std::size_t i = 0; i < out.size(); ++i)
        out[i] = kernels::to_float(reinterpret_cast<const T*>(bytes_.data())[i]);
    });
    return out;
  }

 private:
  DType dtype_;
  std::vector<std::byte> bytes_;
};

struct Results {
  HostTensor out, gate, up, act;
};

// Experts and rows; gates small enough that bf16's rounding of them stays a small part of act.
struct Experts {
  Experts(FfnShape its_shape, DType type, unsigned seed) : shape(std::move(its_shape)), dtype(type) {
    Random random(seed);
    const auto draw = [&](std::int64_t count, float scale) {
      Floats values = random.reals(count);
      for (float& v : values) v = rounded(scale * v, dtype);
      return values;
    };
    const float by_hidden = 1.0F / std::sqrt(static_cast<float>(shape.hidden)),
                by_ffn = 1.0F / std::sqrt(static_cast<float>(shape.ffn));
    in = draw(shape.rows() * shape.hidden, 1);
    gate = draw(shape.weights(), by_hidden), up = draw(shape.weights(), by_hidden),
    down = draw(shape.weights(), by_ffn);
  }
  Doubles expected() const {
    const auto wide = [](const Floats& v) { return Doubles(v.begin(), v.end()); };
    return FfnReference{shape, wide(in), wide(gate), wide(up), wide(down)}.out();
  }
  // Rows [first, last) of those of one expert, or of all.
  Results run(CpuIsa isa, int threads, bool save = true) const { return run(isa, threads, shape.offsets, in, save); }
  Results run(CpuIsa isa, int threads, const std::vector<std::int64_t>& offsets, const Floats& rows,
              bool save = true) const {
    const HostTensor x(rows, dtype), w_gate(gate, dtype), w_up(up, dtype), w_down(down, dtype);
    const Floats narrow(at(offsets.back() * shape.ffn), 7.0F);
    Results r{{Floats(rows.size(), 7.0F), dtype}, {narrow, dtype}, {narrow, dtype}, {narrow, dtype}};
    kernels::GroupedFfn op{.in = x.data(),
                           .out = r.out.data(),
                           .w_gate = w_gate.data(),
                           .w_up = w_up.data(),
                           .w_down = w_down.data(),
                           .offsets = offsets,
                           .hidden = shape.hidden,
                           .ffn = shape.ffn,
                           .dtype = dtype};
    kernels::ThreadPool pool(threads);
    const kernels::PackedFfn packed(op, isa, pool, {});
    op.w_gate = op.w_up = op.w_down = {};  // from here on the copy is read
    if (save) op.gate = r.gate.data(), op.up = r.up.data(), op.act = r.act.data();
    kernels::ProductScratch scratch;
    packed.forward(op, pool, scratch, {});
    return r;
  }

  FfnShape shape;
  DType dtype;
  Floats in, gate, up, down;
};

void check(const FfnShape& shape, DType dtype, unsigned seed) {
  const Experts experts(shape, dtype, seed);
  const Doubles expected = experts.expected();
  // fp32: sums of up to 600 terms, two deep. bf16: gate, up, act and out are rounded, each to 2^-8 of its size.
  const double bound = largest(expected) * unit_roundoff(dtype) * (dtype == DType::f32 ? 200 : 6);
  for (const CpuIsa isa : instruction_sets()) {
    SCOPED_TRACE(std::string(kernels::name(isa)) + ", hidden " + std::to_string(shape.hidden) + ", ffn " +
                 std::to_string(shape.ffn) + ", rows " + std::to_string(shape.rows()));
    expect_near(experts.run(isa, 2).out.read(), expected, bound, "out");
  }
}

TEST(PackedFfn, EveryInstructionSet_MatchesDouble) {
  for (const DType dtype : {DType::f32, DType::bf16}) {
    check({{0, 0}, 5, 3}, dtype, 1);                   // no rows
    check({{0, 1}, 1, 1}, dtype, 1);                   // one of everything
    check({{0, 32}, 64, 64}, dtype, 2);                // one expert, whole tiles
    check({{0, 3, 3, 40, 41, 41}, 33, 17}, dtype, 3);  // odd sizes, experts without rows
    check({{0, 0, 0, 530, 530}, 16, 48}, dtype, 4);    // all to one, more rows than a piece has
    check({{0, 0, 3100, 3100}, 20, 24}, dtype, 8);     // so many that threads take parts of rows
    check({{0, 5, 10, 16, 20, 24, 29, 30, 32}, 24, 96}, dtype, 5);
    check({{0, 33}, 1100, 20}, dtype, 6);  // k of several slices
    check({{0, 2}, 40, 600}, dtype, 7);    // several groups of columns, slices on the way back
  }
}

TEST(PackedFfn, RandomShapes_MatchDouble) {
  Random random(11);
  for (int round = 0; round < 12; ++round) {
    FfnShape shape{{0}, random.whole(1, 150), random.whole(1, 100)};
    for (int e = random.whole(1, 4); e > 0; --e)
      shape.offsets.push_back(shape.offsets.back() + std::max(0, random.whole(-20, 90)));
    for (const DType dtype : {DType::f32, DType::bf16}) check(shape, dtype, static_cast<unsigned>(round));
  }
}

// 1,556 rows are seven parts of them, with a last block of 20: a few rows from everywhere, alone and in fours.
TEST(PackedFfn, RowAmongOthers_HasTheBitsThatItHasAlone) {
  constexpr std::int64_t kRows = 1556, kHidden = 544, kFfn = 80;  // two slices
  for (const DType dtype : {DType::f32, DType::bf16}) {
    const Experts experts({{0, kRows}, kHidden, kFfn}, dtype, 12);
    for (const CpuIsa isa : instruction_sets()) {
      const Results all = experts.run(isa, 1);
      for (const std::int64_t row : {0, 11, 12, 31, 500, 511, 512, 1023, 1552})
        for (const std::int64_t count : {1, 4}) {
          const auto first = experts.in.begin() + row * kHidden;
          const Results few = experts.run(isa, 1, {0, count}, Floats(first, first + count * kHidden));
          for (const auto& [of_all, of_few, columns] :
               {std::tuple(&all.out, &few.out, kHidden), {&all.gate, &few.gate, kFfn}, {&all.act, &few.act, kFfn}})
            EXPECT_EQ(
                std::memcmp(of_all->row(row, columns), of_few->row(0, columns), at(count * columns) * size_of(dtype)),
                0)
                << kernels::name(isa) << ", row " << row << " of " << count << ", " << columns << " columns";
        }
    }
  }
}

// Parts of 256 rows, and six of them a thread before threads take rows instead of columns: 133 rows go by columns,
// 1,556 (7 parts) by rows on one thread and by columns on more, 5,000 (20 parts) by rows on all.
TEST(PackedFfn, ThreadsAndWhatIsSaved_DoNotShowInTheBits) {
  for (const DType dtype : {DType::f32, DType::bf16})
    for (const auto& [offsets, hidden, ffn] :
         {std::tuple(std::vector<std::int64_t>{0, 70, 70, 133}, 96, 304), {{0, 1556}, 544, 80}, {{0, 5000}, 40, 48}}) {
      const Experts experts({offsets, hidden, ffn}, dtype, 13);
      const Results one = experts.run(kernels::best_isa(), 1);
      for (const int threads : {2, 3}) {
        SCOPED_TRACE(std::to_string(threads) + " threads, rows " + std::to_string(offsets.back()));
        const Results more = experts.run(kernels::best_isa(), threads);
        EXPECT_TRUE(one.out == more.out);
        EXPECT_TRUE(one.gate == more.gate && one.up == more.up && one.act == more.act);
        EXPECT_TRUE(experts.run(kernels::best_isa(), threads, false).out == one.out);
      }
    }
}

// gate = x w_gate^T and the rest as GroupedFfn says: what the layer's backward goes on with.
TEST(PackedFfn, SavedTensors_AreTheirDefinition) {
  for (const DType dtype : {DType::f32, DType::bf16}) {
    const FfnShape shape{{0, 9, 40}, 50, 21};
    const Experts experts(shape, dtype, 14);
    for (const CpuIsa isa : instruction_sets()) {
      const Results r = experts.run(isa, 1);
      const Floats gate = r.gate.read(), up = r.up.read(), act = r.act.read();
      for (std::int64_t row = 0; row < shape.rows(); ++row)
        for (std::int64_t f = 0; f < shape.ffn; ++f) {
          double g = 0, u = 0;
          const std::int64_t matrix = row < 9 ? 0 : shape.ffn * shape.hidden;
          for (std::int64_t h = 0; h < shape.hidden; ++h) {
            const double x = experts.in[at(row * shape.hidden + h)];
            g += x * experts.gate[at(matrix + f * shape.hidden + h)];
            u += x * experts.up[at(matrix + f * shape.hidden + h)];
          }
          const std::size_t i = at(row * shape.ffn + f);
          const double eps = unit_roundoff(dtype) * (dtype == DType::f32 ? 60 : 1.1);  // |x|, |w| <= 1: sums below 4
          ASSERT_NEAR(gate[i], g, 4 * eps) << kernels::name(isa);
          ASSERT_NEAR(up[i], u, 4 * eps) << kernels::name(isa);
          const double saved = gate[i];
          ASSERT_NEAR(act[i], saved / (1 + std::exp(-saved)) * up[i], 16 * eps) << kernels::name(isa);
        }
    }
  }
}

// Far out on both sides the exponential must not overflow, and what is not a number must stay it.
TEST(PackedFfn, LargeGates_GiveSwigluOfThem) {
  // One k: gate = x, up = 1, down = 1: out = silu(x).
  for (const float x : {-3e4F, -200.0F, -88.0F, 0.0F, 88.0F, 3e4F, std::nanf("")})
    for (const CpuIsa isa : instruction_sets()) {
      Experts experts({{0, 1}, 1, 1}, DType::f32, 15);
      experts.in = {x}, experts.gate = {1.0F}, experts.up = {1.0F / x}, experts.down = {1.0F};
      if (x == 0.0F) experts.up = {1.0F};
      const float out = experts.run(isa, 1).out.read()[0];
      const double wide = x, expected = wide / (1 + std::exp(-wide)) * static_cast<double>(x * experts.up[0]);
      if (std::isnan(x))
        EXPECT_TRUE(std::isnan(out)) << kernels::name(isa);
      else
        EXPECT_NEAR(out, expected, std::abs(wide) * 1e-6) << kernels::name(isa) << ", x " << x;
    }
}

// Their forward would read a gate's weights.
TEST(PackedFfn, ExpertsWithoutAGate_AreReadAsTheyAre) {
  const auto device = make_cpu_device();
  const Floats weights(32 * 32, 1.0F);
  const std::vector<std::int64_t> offsets{0, 1};
  kernels::GroupedFfn op{.w_gate = weights.data(),
                         .w_up = weights.data(),
                         .w_down = weights.data(),
                         .offsets = offsets,
                         .hidden = 32,
                         .ffn = 32};
  EXPECT_NE(device->pack_experts(op), nullptr);
  op.activation = kernels::Activation::gelu, op.w_gate = {};
  EXPECT_EQ(device->pack_experts(op), nullptr);
}

// 2 x 3 x 600 x 512 x 512 = 944 Mflop: at most a millisecond a call at 10 GFLOP/s is 94 calls.
TEST(PackedFfn, LongProduct_CallsTheProgressHookOften) {
  const Experts experts({{0, 600}, 512, 512}, DType::f32, 16);
  const HostTensor x(experts.in, DType::f32);
  HostTensor out(experts.in, DType::f32);
  const kernels::GroupedFfn op{.in = x.data(),
                               .out = out.data(),
                               .w_gate = experts.gate.data(),
                               .w_up = experts.up.data(),
                               .w_down = experts.down.data(),
                               .offsets = experts.shape.offsets,
                               .hidden = 512,
                               .ffn = 512};
  kernels::ThreadPool pool(1);
  const kernels::PackedFfn packed(op, CpuIsa::portable, pool, {});
  int calls = 0;
  const ProgressHook hook{[](void* state) { ++*static_cast<int*>(state); }, &calls};
  kernels::ProductScratch scratch;
  packed.forward(op, pool, scratch, hook);
  EXPECT_GE(calls, 94);
}

// A machine that lacks one says so.
// The tests above go through what this machine has; what it lacks shows as a skipped test.
TEST(PackedFfn, EveryInstructionSet_IsHere) {
  if (kernels::best_isa() != CpuIsa::amx)
    GTEST_SKIP() << "nothing beyond " << kernels::name(kernels::best_isa())
                 << " was tested: this CPU or kernel lacks it";
  EXPECT_EQ(instruction_sets().back(), CpuIsa::amx);
}

}  // namespace
}  // namespace topomoe::test
