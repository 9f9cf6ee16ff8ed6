/* options.h: the option tables that several commands share, so that a flag means the same everywhere and is named as the API's field.
 *
 * What is made of them: placement.h (who holds what), core_options.h (a coordinator's configuration), own_cluster.h (a short command's
 * workers), fit.h (do two starts fit). */
#ifndef CLI_OPTIONS_H
#define CLI_OPTIONS_H

#include "base/conf.h"
#include "cli/choices.h"
#include "cluster/place.h"

/* How the model is cut and run. */
struct model_options {
    int64_t tp, pp, threads, context, max_batch_tokens, max_seqs, kv_tokens;
    int32_t kv_type;     /* enum kv_type */
    int32_t activations; /* these: choices.h */
    int32_t wire;
    int32_t exact;
    int32_t experts;
    int32_t wire_type;
    bool prefix_cache;
    int64_t speculate;
    const char *isa, *device, *shard_cache;
    const char *lora;        /* "NAME=PATH,...": adapters */
    int64_t shard_cache_size;
    double comm_timeout;
};

/* Where the workers are and how they are reached. */
struct cluster_options {
    int32_t launch; /* enum core_launch */
    int64_t ranks, replicas;
    const char *topo, *hostfile, *mpirun_args, *listen, *key_file, *tls_cert, *tls_key, *tls_ca, *log_level;
    double load_timeout, rejoin_timeout, recovery_timeout, stall_timeout;
};

/* The tables' offsets are into a struct that begins with this one. */
struct common_options { struct model_options model; struct cluster_options cluster; };
extern const struct conf_opt model_option_table[], cluster_option_table[];
extern const struct conf_opt adapter_option_table[]; /* of commands that use adapters */

/* What a command with workers begins with: its options into *o (a struct whose first member it is), --log-level. *done: --help was asked for
 * and given, there is nothing left to do. args: as conf_parse; such a command has one at least. */
MUST_USE enum err options_begin(const struct conf_table *t, int argc, char **argv, struct common_options *o, const char *args[], bool *done);
MUST_USE enum err options_log_level(const char *level);

/* Ranks that a managed start needs for each replica: tp x pp, or its share of the hostfile's slots. Err BAD_CONFIG. */
MUST_USE enum err options_ranks(const struct common_options *o, int32_t *n);

#define EXPERTS_HELP                                                                                                                          \
    "of each layer on several ranks: every expert cut inside, or each whole on one of them (other bits, the same for every cut); auto: cut "  \
    "inside, with --exact off as the planner finds faster"
/* What --exact and --experts ask of the planner: sums in another order, which whole experts have, are not its to choose where bits must stay. */
enum clu_experts options_experts(int32_t exact, int32_t experts);
/* Err BAD_CONFIG: --wire-type changes results, and --exact is on. */
MUST_USE enum err options_wire_check(int32_t exact, int32_t wire_type);
/* How sums travel between hosts as far as the options say; *chosen false: the planner may look for what is faster. */
enum clu_wire_type options_wire(int32_t exact, int32_t wire_type, bool *chosen);

#endif
