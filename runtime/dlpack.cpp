#include "runtime/dlpack.hpp"

#include <array>
#include <utility>

#include "topomoe/error.hpp"

namespace topomoe {
namespace {

DLDataType dl_type(DlElement e) {
  switch (e) {
    case DlElement::f32: return {kDLFloat, 32, 1};
    case DlElement::bf16: return {kDLBfloat, 16, 1};
    case DlElement::i32: return {kDLInt, 32, 1};
  }
  throw std::logic_error("topomoe bug: no such element");
}

std::string text_of(const DLDataType& t) {
  static constexpr std::array<const char*, 7> kNames = {"int", "uint", "float", "opaque", "bfloat", "complex", "bool"};
  std::string text = t.code < kNames.size() ? kNames[t.code] : "type " + std::to_string(t.code) + ", ";
  text += std::to_string(t.bits);
  return t.lanes == 1 ? text : text + " x " + std::to_string(t.lanes);
}

std::string text_of(const DLDevice& d) {
  switch (d.device_type) {
    case kDLCPU: return "the cpu";
    case kDLCUDA: return "cuda:" + std::to_string(d.device_id);
    case kDLCUDAHost: return "pinned host memory";
    case kDLCUDAManaged: return "managed memory";
  }
  return "device type " + std::to_string(static_cast<int>(d.device_type));
}

bool on_gpu(const DlPlace& place) { return place.memory == MemorySpace::cuda; }
DLDevice dl_device(const DlPlace& place) {
  return on_gpu(place) ? DLDevice{kDLCUDA, place.ordinal} : DLDevice{kDLCPU, 0};
}

bool reachable(const DLDevice& d, const DlPlace& place) {
  if (d.device_type == kDLCUDAManaged) return true;
  if (on_gpu(place)) return d.device_type == kDLCUDA && d.device_id == place.ordinal;
  return d.device_type == kDLCPU || d.device_type == kDLCUDAHost;
}

std::string numbers(const std::int64_t* of, std::int32_t count) {
  std::string text = "[";
  for (std::int32_t i = 0; i < count; ++i) text += (i == 0 ? "" : ", ") + std::to_string(of[i]);
  return text + "]";
}

struct Own {  // of a tensor that is handed out
  DLManagedTensor tensor{};
  std::array<std::int64_t, 2> shape{}, strides{};
  std::shared_ptr<const void> keep;
};
void delete_own(DLManagedTensor* self) { delete static_cast<Own*>(self->manager_ctx); }

void delete_versioned(DLManagedTensor* self) {
  auto* inner = static_cast<DLManagedTensorVersioned*>(self->manager_ctx);
  if (inner->deleter != nullptr) inner->deleter(inner);
  delete self;
}

bool read_only(const DLManagedTensor& t) {
  return t.deleter == delete_versioned &&
         (static_cast<const DLManagedTensorVersioned*>(t.manager_ctx)->flags & DLPACK_FLAG_BITMASK_READ_ONLY) != 0;
}

}  // namespace

DlRows read_dlpack(const DLManagedTensor& tensor, const std::string& name, DlElement element, std::int64_t columns,
                   const DlPlace& place, bool written) {
  const DLTensor& t = tensor.dl_tensor;
  const DLDataType wanted = dl_type(element);
  if (t.dtype.code != wanted.code || t.dtype.bits != wanted.bits || t.dtype.lanes != wanted.lanes)
    throw InvalidInput(name, text_of(t.dtype), text_of(wanted) + " is needed");
  if (!reachable(t.device, place))
    throw InvalidInput(name, "on " + text_of(t.device), "the layer is on " + text_of(dl_device(place)));
  const std::string shape = t.ndim >= 0 && (t.shape != nullptr || t.ndim == 0) ? numbers(t.shape, t.ndim) : "no shape";
  if (t.ndim < 2 || t.shape == nullptr || t.shape[t.ndim - 1] != columns)
    throw InvalidInput(name, shape, "[rows, " + std::to_string(columns) + "] is needed");
  std::int64_t rows = 1;
  for (std::int32_t i = 0; i + 1 < t.ndim; ++i) rows *= t.shape[i];
  if (rows > 0 && t.strides != nullptr) {
    std::int64_t expected = 1;
    for (std::int32_t i = t.ndim; i-- > 0;) {
      if (t.shape[i] != 1 && t.strides[i] != expected)  // of a dimension of one nobody makes a step
        throw InvalidInput(name, shape + " with strides " + numbers(t.strides, t.ndim),
                           "rows must lie one after another: make it contiguous");
      expected *= t.shape[i];
    }
  }
  if (written && read_only(tensor)) throw InvalidInput(name, "read-only", "it is written to");
  auto* const data = static_cast<std::byte*>(t.data);
  if (data == nullptr && rows > 0) throw InvalidInput(name, "null", "it has " + std::to_string(rows) + " rows");
  return {data != nullptr ? data + t.byte_offset : nullptr, rows};
}

DLManagedTensor* make_dlpack(const void* data, std::int64_t rows, std::int64_t columns, DlElement element,
                             const DlPlace& place, std::shared_ptr<const void> keep) {
  auto own = std::make_unique<Own>();
  own->shape = {rows, columns}, own->strides = {columns, 1};
  own->keep = std::move(keep);
  own->tensor = {.dl_tensor = {.data = const_cast<void*>(data),  // DLPack 0.8 knows no read-only
                               .device = dl_device(place),
                               .ndim = 2,
                               .dtype = dl_type(element),
                               .shape = own->shape.data(),
                               .strides = own->strides.data(),
                               .byte_offset = 0},
                 .manager_ctx = own.get(),
                 .deleter = delete_own};
  return &own.release()->tensor;
}

DLManagedTensor* unversioned(DLManagedTensorVersioned* tensor) {
  if (tensor->version.major != 1)
    throw InvalidInput("DLPack",
                       "version " + std::to_string(tensor->version.major) + "." + std::to_string(tensor->version.minor),
                       "1.x is known");
  return new DLManagedTensor{tensor->dl_tensor, tensor, delete_versioned};
}

}  // namespace topomoe
