/* topomoe in C: reads a plan and runs its MoE layers, forward and backward, inside another program.
 *
 * Every function that can fail returns a topomoe_status and leaves what was wrong in topomoe_last_error(), one line,
 * for the calling thread. No exception, signal handler, exit or line of output comes from here (but see
 * topomoe_communicator_abort). Objects are opaque; what an object was made from may be freed before it. An object is
 * used by one thread at a time. Structs begin with their size and version, filled by their _INIT macro; those of an
 * older header are as good: fields that they do not have are as _INIT leaves them. libtopomoe.so shows these functions
 * and nothing else; linked statically they need a C++ linker. Not here: the planner. */
#ifndef TOPOMOE_TOPOMOE_H
#define TOPOMOE_TOPOMOE_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Raised where a struct or function below changes its meaning; new fields only make structs longer. */
#define TOPOMOE_ABI_VERSION 1u

typedef enum topomoe_status {
  TOPOMOE_OK = 0,
  TOPOMOE_INVALID_INPUT = 1,       /* an argument or file that cannot be used: nothing was done */
  TOPOMOE_MISSING_ENVIRONMENT = 2, /* a library, device or memory that is not here */
  TOPOMOE_TRANSPORT_ERROR = 3,     /* a peer failed or passed the deadline: the communicator is of no more use */
  TOPOMOE_INTERNAL_ERROR = 4       /* our bug */
} topomoe_status;

typedef enum topomoe_dtype { TOPOMOE_F32 = 0, TOPOMOE_BF16 = 1 } topomoe_dtype;

typedef struct topomoe_plan topomoe_plan;
typedef struct topomoe_communicator topomoe_communicator;
typedef struct topomoe_device topomoe_device;
typedef struct topomoe_layer topomoe_layer;
typedef struct topomoe_handle topomoe_handle; /* what a backward needs of its forward */

/* How the output of a shared expert joins that of the routed ones. */
typedef enum topomoe_shared_gate {
  TOPOMOE_SHARED_ADDED = 0,   /* routed + shared (DeepSeek) */
  TOPOMOE_SHARED_SIGMOID = 1, /* routed + sigmoid(w . x) shared (Qwen2-MoE) */
  TOPOMOE_SHARED_RESIDUAL = 2 /* a routed + b shared, (a, b) = softmax(w0 . x, w1 . x) (PR-MoE) */
} topomoe_shared_gate;

/* Of the last call of this thread that failed; valid until the next one. Never null. */
const char* topomoe_last_error(void);
const char* topomoe_status_name(topomoe_status status); /* "invalid input" */
const char* topomoe_version(void);  /* "0.1.0" of the library; TOPOMOE_ABI_VERSION is the header's */
uint32_t topomoe_abi_version(void); /* of the library */

/* Plans. `name` is how messages call the text. */
topomoe_status topomoe_plan_read(const char* text, size_t bytes, const char* name, topomoe_plan** plan);
topomoe_status topomoe_plan_read_file(const char* path, topomoe_plan** plan);
void topomoe_plan_free(topomoe_plan* plan);
/* 16 hex digits and a zero; ranks that run one plan have one hash. */
topomoe_status topomoe_plan_hash(const topomoe_plan* plan, char hash[17]);

/* Of the MoE layers of one kind; kind 0 where all are alike. */
typedef struct topomoe_plan_info {
  size_t size;
  uint32_t version;
  int32_t kinds; /* of MoE layers in the plan */
  int32_t world, tp, ep, etp, gpus_per_node;
  int32_t sequence_parallel; /* 0: all ranks of a TP group hold the same tokens */
  int32_t experts, top_k, renormalize;
  int64_t hidden, ffn; /* ffn: of one expert, all shards */
  topomoe_dtype dtype;
  double tokens_per_tp_group; /* in one micro-batch */
  int64_t shared_ffn;         /* width of the shared expert, all shards; 0: there is none */
  topomoe_shared_gate shared_gate;
  int32_t sigmoid_scores;                    /* of the router; 0: softmax */
  int32_t router_groups, router_topk_groups; /* a token's experts lie in the best topk_groups of so many equal groups */
  double routed_scaling, capacity_factor;    /* capacity 0: no token is dropped */
  int32_t gated;                             /* 1: SwiGLU experts; 0: GELU ones without a gate */
  int32_t replicated;                        /* 1: some experts stand at several places: topomoe_sum_over_replicas */
} topomoe_plan_info;
#define TOPOMOE_PLAN_INFO_INIT                                                                               \
  {                                                                                                          \
    sizeof(topomoe_plan_info), TOPOMOE_ABI_VERSION, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, TOPOMOE_F32, 0.0, 0, \
        TOPOMOE_SHARED_ADDED, 0, 0, 0, 0.0, 0.0, 0, 0                                                        \
  }
topomoe_status topomoe_plan_get_info(const topomoe_plan* plan, int32_t kind, topomoe_plan_info* info);
/* Ids of the experts that a rank holds, in the order of its tensors; of at most `most` of them. experts may be null. */
topomoe_status topomoe_plan_held_experts(const topomoe_plan* plan, int32_t kind, int32_t rank, int32_t* experts,
                                         int32_t most, int32_t* count);

/* Ranks as threads of this process: writes `size` communicators, one for each thread. */
topomoe_status topomoe_inproc_world(int32_t size, topomoe_communicator** communicators);
/* Collective. `mpi_comm` is the address of an MPI_Comm, null for MPI_COMM_WORLD; it is duplicated, never modified.
 * MPI must be initialised (MPI_THREAD_FUNNELED at least) and stay so while the communicator lives. */
topomoe_status topomoe_mpi_communicator(const void* mpi_comm, topomoe_communicator** communicator);
/* Collective. Ranks as plain processes, started by torchrun, ssh or a shell, connected by TCP; host memory, no MPI. */
typedef struct topomoe_tcp_config {
  size_t size;
  uint32_t version;
  int32_t rank, world_size; /* world_size 0: this and the next two from the environment, in the order of the launchers
                               that are known; then MASTER_ADDR, and TOPOMOE_MASTER_PORT or MASTER_PORT */
  const char* address;      /* of rank 0's host, in the network to use */
  int32_t port;             /* free there: rank 0 listens on it until all have come */
  int32_t deadline_ms;      /* of coming together, of opening channels, of barriers; 0: 30 s */
} topomoe_tcp_config;
#define TOPOMOE_TCP_CONFIG_INIT \
  { sizeof(topomoe_tcp_config), TOPOMOE_ABI_VERSION, 0, 0, NULL, 0, 0 }
/* `config` null: all from the environment. */
topomoe_status topomoe_tcp_communicator(const topomoe_tcp_config* config, topomoe_communicator** communicator);
/* Collective. GPU memory. `nccl_comm` is an ncclComm_t, which is split once and not modified; null: a new one is made,
 * whose id travels over `host`, a communicator of host memory, and whose ranks are those of `host`. */
topomoe_status topomoe_nccl_communicator(topomoe_device* device, void* nccl_comm, topomoe_communicator* host,
                                         topomoe_communicator** communicator);
topomoe_status topomoe_communicator_rank(const topomoe_communicator* communicator, int32_t* rank, int32_t* size);
/* Tells the others that this rank gave up, as a failed pass does by itself. It ends no process. */
topomoe_status topomoe_communicator_abort(topomoe_communicator* communicator, const char* why);
void topomoe_communicator_free(topomoe_communicator* communicator);

typedef struct topomoe_device_config {
  size_t size;
  uint32_t version;
  int32_t cuda; /* -1: the CPU; else which of the GPUs that are visible */
  /* Where memory comes from; null: from the heap, or cudaMalloc. include/topomoe/allocator.hpp says what is asked. */
  void* (*allocate)(size_t bytes, void* state);
  void (*release)(void* memory, size_t bytes, void* state);
  void* state;
} topomoe_device_config;
#define TOPOMOE_DEVICE_CONFIG_INIT \
  { sizeof(topomoe_device_config), TOPOMOE_ABI_VERSION, -1, NULL, NULL, NULL }
/* Each rank has its own, threads too. `config` null: the CPU. */
topomoe_status topomoe_device_create(const topomoe_device_config* config, topomoe_device** device);
void topomoe_device_free(topomoe_device* device);
/* A rank of topomoe_inproc_world that exchanges GPU memory: which GPU is its own. Before any layer is made on it. */
topomoe_status topomoe_inproc_use_device(topomoe_communicator* communicator, topomoe_device* device);

/* Whether ranks are where the plan has them, host and device, and have one plan. */
typedef struct topomoe_rank_check {
  size_t size;
  uint32_t version;
  int32_t mismatches;   /* lines of text; 0: all as planned */
  int32_t plans_differ; /* then nothing else may be called */
  int32_t planned_rank; /* what this rank is to be called so that all are where they are planned: the key to split a
                           communicator by, or the RANK to start again with; -1: no order fits */
} topomoe_rank_check;
#define TOPOMOE_RANK_CHECK_INIT \
  { sizeof(topomoe_rank_check), TOPOMOE_ABI_VERSION, 0, 0, 0 }
/* Collective; all ranks hear the same. `host` null: this machine's name; `bus_id` of the rank's device, null: unknown.
 * One line a mismatch goes to `text`, cut to `bytes` with its final zero; text may be null. */
topomoe_status topomoe_check_ranks(const topomoe_plan* plan, topomoe_communicator* communicator, const char* host,
                                   const char* bus_id, topomoe_rank_check* check, char* text, size_t bytes);

typedef struct topomoe_layer_config {
  size_t size;
  uint32_t version;
  int32_t kind;          /* of MoE layer */
  int64_t hidden, ffn;   /* 0: as planned */
  int32_t dtype;         /* a topomoe_dtype; -1: as planned */
  int32_t deadline_ms;   /* of every wait; 0: 30 s */
  int32_t accept_unlike; /* 1: GELU in experts without a gate, whatever the model has (no plan says); refused else */
  double balance_loss, z_loss; /* coefficients of the router's losses: include/topomoe/router_options.hpp; 0: none */
  int64_t shared_ffn;          /* 0: as planned */
  /* Memory of bounded size, for so many tokens of a TP group and so many times the mean of routed rows on any rank
     (-1, 0: as planned); what does not fit runs in further rounds. tokens 0: memory grows with what comes. */
  double memory_tokens, memory_skew;
  /* Schedules to switch to: those of so many other plans, which have the layer on the same ranks, of the same sizes,
     placement and router (planned with another --transport, --split or --chunks). topomoe_layer_set_schedule. */
  const topomoe_plan* const* others;
  int32_t other_count;
} topomoe_layer_config;
#define TOPOMOE_LAYER_CONFIG_INIT \
  { sizeof(topomoe_layer_config), TOPOMOE_ABI_VERSION, 0, 0, 0, -1, 0, 0, 0.0, 0.0, 0, 0.0, 0.0, NULL, 0 }

/* Collective over the communicator, whose size is the plan's world. `config` null: all as planned: sizes, placement,
 * capacity factor, router, shared expert. */
topomoe_status topomoe_layer_create(const topomoe_plan* plan, topomoe_communicator* communicator,
                                    topomoe_device* device, const topomoe_layer_config* config, topomoe_layer** layer);
void topomoe_layer_free(topomoe_layer* layer);
/* The caller's stream, a cudaStream_t of the layer's GPU (the legacy default one is cudaStreamLegacy; null: none, as at
 * first). Calls on the layer start after what the stream has by then, later work on it starts after them, and they
 * return once all is issued: who waits on the host is topomoe_handle_wait. */
topomoe_status topomoe_layer_set_stream(topomoe_layer* layer, void* stream);
/* What handles of forwards from now on keep; all ranks alike. */
typedef enum topomoe_keep {
  TOPOMOE_KEEP_ALL = 0,
  TOPOMOE_KEEP_ROUTING = 1 /* routing only: the backward first runs the forward again, with the same bits */
} topomoe_keep;
topomoe_status topomoe_layer_set_keep(topomoe_layer* layer, int32_t keep); /* a topomoe_keep */
/* By which schedule forwards go from now on, all ranks alike: 0, the plan's, as at first, or 1 + i, that of
 * config.others[i]. No weights move and no groups are split; a handle's backward goes by the schedule of its forward.
 * Each schedule that was used keeps memory of its own. */
topomoe_status topomoe_layer_set_schedule(topomoe_layer* layer, int32_t schedule);
/* 1: from now on each forward and backward is waited for on the host, and what its steps did is kept, of its last
 * round, each pass until this is called again; what was kept before goes. 0, as at first: no longer. */
topomoe_status topomoe_layer_set_trace(topomoe_layer* layer, int32_t on);
/* All that is kept as JSON text for ui.perfetto.dev, with what the plan predicted. A process is a rank, times are of
 * the host's monotonic clock: lines of `traceEvents` of several ranks or layers may be joined. `bytes` must have room
 * for `needed`, which counts a final zero; text null: only asks. */
topomoe_status topomoe_layer_trace(const topomoe_layer* layer, char* text, size_t bytes, size_t* needed);
/* Forwards beyond those asked for, as memory of bounded size was full. */
topomoe_status topomoe_layer_overflow_rounds(const topomoe_layer* layer, int64_t* rounds);

/* In the device's memory. Local experts are those that the plan's expert_owners gives to the rank's place in its EP
   group, by id (topomoe_plan_held_experts; unless edited: [E ep_index / EP, E (ep_index + 1) / EP)), `shard` is
   ffn / ETP; the shared expert is cut over TP, `its shard` is shared_ffn / TP. */
typedef struct topomoe_weights {
  size_t size;
  uint32_t version;
  const float* router;          /* [experts, hidden], on every rank */
  const void *gate, *up, *down; /* [local experts][shard, hidden], the same, [hidden, shard]; of the layer's dtype */
  const float* selection_bias;  /* [experts], added to scores for the choice alone; or null */
  const void *shared_gate, *shared_up, *shared_down; /* [its shard, hidden], the same, [hidden, its shard] */
  const float* mix; /* on every rank: of the shared expert's gate, [1, hidden] (sigmoid) or [2, hidden] (residual) */
  /* Instead of one block each: a pointer for each local expert. The arrays are host memory, read during the call. */
  const void *const *gates, *const *ups, *const *downs;
} topomoe_weights;
#define TOPOMOE_WEIGHTS_INIT                                                                                        \
  {                                                                                                                 \
    sizeof(topomoe_weights), TOPOMOE_ABI_VERSION, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, \
        NULL                                                                                                        \
  }
/* Added to, of the same shapes. router may be null, mix too; gate, up and down together; those of the shared expert
   together: what is null is left out. A rank's share: sum them over the ranks that have the same parameter. */
typedef struct topomoe_gradients {
  size_t size;
  uint32_t version;
  float *router, *gate, *up, *down;
  float *shared_gate, *shared_up, *shared_down, *mix;
  float *const *gates, *const *ups, *const *downs; /* as above; weights and gradients need not lie alike */
} topomoe_gradients;
#define TOPOMOE_GRADIENTS_INIT \
  { sizeof(topomoe_gradients), TOPOMOE_ABI_VERSION, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL }

/* Collective. tokens and output are [rows, hidden]; rows may be 0 and differ between ranks (or TP groups). tokens must
 * stay until the backward. handle null: no backward will come. Invalid input is found before anything moves, on this
 * rank: the others wait for it until their deadline. What the call writes is complete when it returns, on a GPU too
 * (but see topomoe_layer_set_stream). */
topomoe_status topomoe_forward(topomoe_layer* layer, const void* tokens, int64_t rows, void* output,
                               const topomoe_weights* weights, topomoe_handle** handle);
topomoe_status topomoe_backward(topomoe_layer* layer, topomoe_handle* handle, const void* output_gradients,
                                void* token_gradients, const topomoe_weights* weights,
                                const topomoe_gradients* gradients);
void topomoe_handle_free(topomoe_handle* handle);
/* On the host, until the last call on the handle is over, or failed. */
topomoe_status topomoe_handle_wait(topomoe_handle* handle);
/* The same as a cudaEvent_t, for other streams: ours, valid until the next call on the handle. Null: it is over. */
topomoe_status topomoe_handle_event(const topomoe_handle* handle, void** event);
/* Of this rank, the caller's tokens not counted. */
topomoe_status topomoe_handle_saved_bytes(const topomoe_handle* handle, size_t* bytes);
/* What the router of the forward did on this rank: its losses times their coefficients, and choices by expert. */
typedef struct topomoe_router_report {
  size_t size;
  uint32_t version;
  int32_t experts;
  double balance_loss, z_loss;
  const int64_t* chosen; /* [experts], before any capacity; valid until the next call on the handle */
} topomoe_router_report;
#define TOPOMOE_ROUTER_REPORT_INIT \
  { sizeof(topomoe_router_report), TOPOMOE_ABI_VERSION, 0, 0.0, 0.0, NULL }
topomoe_status topomoe_handle_router(const topomoe_handle* handle, topomoe_router_report* report);
/* Collective; once an optimizer step, after its last backward, where info.replicated: gradients of each replicated
 * expert (gate, up, down) become their sum over its replicas, with the same bits on each; then comes EDP's reduction.
 * Complete when it returns. */
topomoe_status topomoe_sum_over_replicas(topomoe_layer* layer, const topomoe_gradients* gradients);

/* dispatch and combine, for programs with their own router and experts: include/topomoe/dispatch.hpp says what they
 * are, also to bounded memory. Of the config what is about experts, router and other schedules must be 0; accept_unlike
 * plays no part. */
typedef struct topomoe_dispatcher topomoe_dispatcher;
typedef struct topomoe_dispatched topomoe_dispatched; /* one dispatch on its way to its combine and back */

topomoe_status topomoe_dispatcher_create(const topomoe_plan* plan, topomoe_communicator* communicator,
                                         topomoe_device* device, const topomoe_layer_config* config,
                                         topomoe_dispatcher** dispatcher);
void topomoe_dispatcher_free(topomoe_dispatcher* dispatcher);
/* As topomoe_layer_set_stream: the caller's experts run on that stream between the calls. */
topomoe_status topomoe_dispatcher_set_stream(topomoe_dispatcher* dispatcher, void* stream);
/* Collective. ids and weights are [rows, top_k]. */
topomoe_status topomoe_dispatch(topomoe_dispatcher* dispatcher, const void* tokens, int64_t rows, const int32_t* ids,
                                const float* weights, topomoe_dispatched** dispatched);
/* What this rank's experts are to compute: after dispatch of tokens, after combine_backward of gradients. */
typedef struct topomoe_batch {
  size_t size;
  uint32_t version;
  int32_t experts;     /* held by this rank */
  const int64_t* rows; /* of each; valid until the next call with this dispatched */
  const void* inputs;  /* [sum of rows, hidden], one expert after another */
  void* outputs;       /* the same, to be written */
} topomoe_batch;
#define TOPOMOE_BATCH_INIT \
  { sizeof(topomoe_batch), TOPOMOE_ABI_VERSION, 0, NULL, NULL, NULL }
topomoe_status topomoe_batches(const topomoe_dispatched* dispatched, int32_t* count);
topomoe_status topomoe_get_batch(const topomoe_dispatched* dispatched, int32_t index, topomoe_batch* batch);
/* Collective, in this order, each once. */
topomoe_status topomoe_combine(topomoe_dispatched* dispatched, void* output);
topomoe_status topomoe_combine_backward(topomoe_dispatched* dispatched, const void* output_gradients);
topomoe_status topomoe_dispatch_backward(topomoe_dispatched* dispatched, void* token_gradients,
                                         float* weight_gradients);
topomoe_status topomoe_dispatched_wait(topomoe_dispatched* dispatched); /* as topomoe_handle_wait */
void topomoe_dispatched_free(topomoe_dispatched* dispatched);

/* The same with DLPack's tensors (dlpack.h, or topomoe/dlpack.h where there is none), which are checked and taken as
 * they lie: element type, device, contiguous rows of the right width; leading dimensions are rows. They are borrowed:
 * their deleters are the caller's to call, of tokens after the backward. What they hold must be complete, or be so on
 * the stream that was set. */
struct DLManagedTensor;
struct DLManagedTensorVersioned;
/* Takes `tensor`, of DLPack 1.x, over; the deleter of `out` calls its own. Read-only ones stay so. */
topomoe_status topomoe_dlpack_unversioned(struct DLManagedTensorVersioned* tensor, struct DLManagedTensor** out);
topomoe_status topomoe_forward_dlpack(topomoe_layer* layer, const struct DLManagedTensor* tokens,
                                      const struct DLManagedTensor* output, const topomoe_weights* weights,
                                      topomoe_handle** handle);
topomoe_status topomoe_backward_dlpack(topomoe_layer* layer, topomoe_handle* handle,
                                       const struct DLManagedTensor* output_gradients,
                                       const struct DLManagedTensor* token_gradients, const topomoe_weights* weights,
                                       const topomoe_gradients* gradients);
topomoe_status topomoe_dispatch_dlpack(topomoe_dispatcher* dispatcher, const struct DLManagedTensor* tokens,
                                       const struct DLManagedTensor* ids, const struct DLManagedTensor* weights,
                                       topomoe_dispatched** dispatched);
/* [rows, hidden] each, new: their deleters are to be called. Both keep the dispatched alive, also when it is freed; the
 * outputs are to be written before the next call with it, and not touched after. */
topomoe_status topomoe_get_batch_dlpack(const topomoe_dispatched* dispatched, int32_t index,
                                        struct DLManagedTensor** inputs, struct DLManagedTensor** outputs);
topomoe_status topomoe_combine_dlpack(topomoe_dispatched* dispatched, const struct DLManagedTensor* output);
topomoe_status topomoe_combine_backward_dlpack(topomoe_dispatched* dispatched,
                                               const struct DLManagedTensor* output_gradients);
topomoe_status topomoe_dispatch_backward_dlpack(topomoe_dispatched* dispatched,
                                                const struct DLManagedTensor* token_gradients,
                                                const struct DLManagedTensor* weight_gradients);

#ifdef __cplusplus
}
#endif
#endif
