/* options.c: see options.h. */
#include "cli/options.h"

#include "base/log.h"
#include "cluster/cost.h"
#include "cluster/launch.h"

#define M(f) offsetof(struct common_options, model.f)
#define K(f) offsetof(struct common_options, cluster.f)

const struct conf_opt model_option_table[] = {
    {"", CONF_TITLE, 0, NULL, 0, 0, NULL, "the model and its cut"},
    {"tp", CONF_INT, M(tp), "0", 0, 64, "N",
     "not planned: N tensor-parallel ranks per stage, in equal parts; 0: the planner gives each rank what suits it, unless --pp is given",
     "tensor-parallel-size tensor_parallel_size"},
    {"pp", CONF_INT, M(pp), "1", 1, 64, "N",
     "not planned: N stages of equally many layers, of equally many ranks each; 1: the planner chooses, unless --tp is given", "pipeline-parallel-size"},
    {"threads", CONF_INT, M(threads), "0", 0, 512, "N",
     "compute threads per rank; 0: the host's cores divided among its ranks", "threads-batch n-threads nthreads"},
    {"context", CONF_INT, M(context), "0", 0, LIMIT_CONTEXT, "N",
     "longest sequence in tokens; 0: the model's, at most 8192", "max-model-len ctx-size ctx max-seq-len max-input-length max-total-tokens"},
    {"max-seqs", CONF_INT, M(max_seqs), "64", 1, LIMIT_SLOTS, "N", "sequences running at once", "max-num-seqs parallel np"},
    {"max-batch-tokens", CONF_INT, M(max_batch_tokens), "512", 16, LIMIT_STEP_TOKENS, "N",
     "tokens computed in one step", "max-num-batched-tokens batch-size ubatch-size"},
    {"kv-tokens", CONF_INT, M(kv_tokens), "0", 0, 1e9, "N",
     "tokens the KV cache holds; 0: as memory allows, at most 8 contexts", "gpu-memory-utilization num-gpu-blocks-override"},
    {"kv-type", CONF_ENUM, M(kv_type), "f16", 0, 0, KV_TYPE_NAMES, "type of the KV cache", "kv-cache-dtype cache-type-k cache-type-v buffer-float-type"},
    {"activations", CONF_ENUM, M(activations), "q8", 0, 0, ACTIVATIONS_NAMES, "inputs of quantised matmuls; f32 is the oracle mode"},
    {"exact", CONF_ENUM, M(exact), "on", 0, 0, EXACT_NAMES,
     "the same bits whatever the cut and the processor; off lets sums travel as fewer bytes between hosts, and products of bf16 and f16 weights, and on cards "
     "the attention of prompts, round more where that is faster"},
    {"experts", CONF_ENUM, M(experts), "auto", 0, 0, EXPERTS_NAMES, EXPERTS_HELP, "enable-expert-parallel expert-parallel-size ep-size"},
    {"prefix-cache", CONF_FLAG, M(prefix_cache), "on", 0, 0, "on|off",
     "reuse the KV blocks of common prefixes", "enable-prefix-caching no-enable-prefix-caching cache-reuse"},
    {"speculate", CONF_INT, M(speculate), "7", 0, LIMIT_RESULT_TOKENS - 1, "N",
     "tokens guessed ahead where a text repeats itself, checked in one step, with the same answers; 0: none", "num-speculative-tokens draft-max draft"},
    {"device", CONF_STR, M(device), "auto", 0, 0, "NAME",
     "where ranks compute: auto (each GPU of a host one rank, the others on its CPU), cpu, cuda (GPUs only, shared if need be), cuda:N",
     "n-gpu-layers gpu-layers ngl main-gpu"},
    {"isa", CONF_STR, M(isa), "auto", 0, 0, "NAME", "kernels: auto, ref, or those of an instruction set: avx2, avxvnni, avx512, amx; neon, dotprod, i8mm"},
    {"wire", CONF_ENUM, M(wire), "auto", 0, 0, WIRE_NAMES, "how ranks speak: shared memory on one host, else MPI"},
    {"shard-cache", CONF_STR, M(shard_cache), "auto", 0, 0, "DIR",
     "packed weights kept on each rank's disk for the next start: a directory, off, or auto: ~/.cache/tessera where the model lies on another machine"},
    {"shard-cache-size", CONF_SIZE, M(shard_cache_size), "0", 0, 1e15, "BYTES", "its bound on each host; 0: a quarter of the free space"},
    {"wire-type", CONF_ENUM, M(wire_type), "auto", 0, 0, WIRE_TYPE_NAMES,
     "with --exact off: how sums travel between hosts; auto: what the links make fastest"},
    {"comm-timeout", CONF_FLOAT, M(comm_timeout), "30", 0.1, 3600, "S", "seconds a rank waits for another before it gives up"},
    {0},
};

const struct conf_opt adapter_option_table[] = {
    {"lora", CONF_LIST, M(lora), NULL, 0, 0, "NAME=PATH",
     "a LoRA adapter beside the model (PEFT's directory or a GGUF file), asked for as model NAME; may be given again, for more",
     "lora-modules adapters lora-adapter lora-paths enable-lora"},
    {0},
};

const struct conf_opt cluster_option_table[] = {
    {"", CONF_TITLE, 0, NULL, 0, 0, NULL, "the workers"},
    {"topo", CONF_STR, K(topo), NULL, 0, 0, "FILE",
     "the machines as measured (tessera doctor --hostfile HOSTS --record FILE), for a placement that knows them"},
    {"hostfile", CONF_STR, K(hostfile), NULL, 0, 0, "FILE",
     "hosts for the workers, one \"NAME slots=N\" per line; slots are ranks: 1 for the processors of a box, or 1 for each of its cards",
     "hosts machinefile workers"},
    {"launch", CONF_ENUM, K(launch), "managed", 0, 0, "managed|external", "start the workers with mpirun, or wait for them to join"},
    {"ranks", CONF_INT, K(ranks), "0", 0, LIMIT_RANKS, "N", "with --launch external: how many ranks will join; 0: any job"},
    {"replicas", CONF_INT, K(replicas), "1", 1, 16, "N",
     "copies of the model behind one gateway, each on its own ranks (--tp, --pp and --ranks are one copy's)", "data-parallel-size dp"},
    {"mpirun-args", CONF_STR, K(mpirun_args), NULL, 0, 0, "ARGS", "more arguments for mpirun"},
    {"listen", CONF_STR, K(listen), NULL, 0, 0, "HOST:PORT",
     "worker plane; default: loopback, or with a hostfile the address of this host that faces those hosts"},
    {"cluster-key-file", CONF_STR, K(key_file), NULL, 0, 0, "FILE", "the cluster key (mode 0600); else TESSERA_CLUSTER_KEY"},
    {"tls-cert", CONF_STR, K(tls_cert), NULL, 0, 0, "FILE", "certificate of the worker plane (PEM)"},
    {"tls-key", CONF_STR, K(tls_key), NULL, 0, 0, "FILE", "its key"},
    {"tls-ca", CONF_STR, K(tls_ca), NULL, 0, 0, "FILE", "CA that the other side's certificate must come from (mTLS)"},
    {"load-timeout", CONF_FLOAT, K(load_timeout), "600", 1, 1e6, "S", "seconds in which no rank joins and no byte is loaded until the start has failed"},
    {"stall-timeout", CONF_FLOAT, K(stall_timeout), "10", 0, 1e6, "S", "seconds without progress of any rank until the replica counts as hung; 0: never"},
    {"recovery-timeout", CONF_FLOAT, K(recovery_timeout), "60", 0, 1e6, "S", "seconds that open answers wait for lost workers to be back; 0: end at once"},
    {"rejoin-timeout", CONF_FLOAT, K(rejoin_timeout), "30", 0, 1e6, "S",
     "workers that join by themselves: the same, for a new job; and how long workers wait for another coordinator (--state-dir)"},
    {"log-level", CONF_STR, K(log_level), "info", 0, 0, "LEVEL", "error, warn, info or debug"},
    {0},
};

enum clu_experts options_experts(int32_t exact, int32_t experts)
{
    if (experts == EXPERTS_WHOLE) return CLU_EXPERTS_WHOLE;
    return experts == EXPERTS_AUTO && exact == EXACT_OFF ? CLU_EXPERTS_AUTO : CLU_EXPERTS_CUT;
}

enum err options_wire_check(int32_t exact, int32_t wire_type)
{
    if (wire_type <= WIRE_TYPE_F32 || exact == EXACT_OFF) return OK;
    return err_raise(ERR_BAD_CONFIG, "--wire-type %s changes results: it needs --exact off", clu_wire_name[wire_type - WIRE_TYPE_F32]);
}

enum clu_wire_type options_wire(int32_t exact, int32_t wire_type, bool *chosen)
{
    *chosen = exact == EXACT_ON || wire_type != WIRE_TYPE_AUTO;
    return exact == EXACT_ON || wire_type == WIRE_TYPE_AUTO ? CLU_WIRE_F32 : (enum clu_wire_type)(wire_type - WIRE_TYPE_F32);
}

enum err options_ranks(const struct common_options *o, int32_t *n)
{
    int64_t pp = o->model.pp, tp = o->model.tp;
    if (o->cluster.ranks) *n = (int32_t)o->cluster.ranks;
    else if (tp) *n = (int32_t)(tp * pp);
    else if (o->cluster.hostfile) {
        int32_t slots = clu_hostfile_slots(o->cluster.hostfile), replicas = (int32_t)o->cluster.replicas;
        if (!slots) return ERR_BAD_CONFIG;
        if (slots < replicas) return err_raise(ERR_BAD_CONFIG, "the hostfile has %d slot(s), --replicas %d need at least one each", slots, replicas);
        *n = slots / replicas;
    } else {
        *n = (int32_t)pp;
    }
    if (*n < 1 || *n > LIMIT_RANKS) return err_raise(ERR_BAD_CONFIG, "%d ranks: 1 to %d are possible", *n, LIMIT_RANKS);
    if (*n % pp || (tp && *n != tp * pp))
        return err_raise(ERR_BAD_CONFIG, "%d ranks are not --tp %lld x --pp %lld", *n, (long long)(tp ? tp : *n / pp), (long long)pp);
    return OK;
}

enum err options_log_level(const char *level)
{
    int n = log_level_parse(level);
    if (n < 0) return err_raise(ERR_BAD_CONFIG, "--log-level: '%s' is none of error, warn, info, debug", level);
    log_set_level((enum log_level)n);
    return OK;
}

enum err options_begin(const struct conf_table *t, int argc, char **argv, struct common_options *o, const char *args[], bool *done)
{
    int n_args;
    enum err rc = conf_parse(t, argc, argv, o, args, &n_args, done);
    if (rc) return rc;
    if (*done) {
        conf_help(t);
        return OK;
    }
    ASSERT(n_args);
    return options_log_level(o->cluster.log_level);
}
