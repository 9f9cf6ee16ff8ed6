/* options.h: the option tables that several commands share, so that a flag means the same everywhere and is named as the API's field. */
#ifndef CLI_OPTIONS_H
#define CLI_OPTIONS_H

#include "base/conf.h"
#include "cluster/forecast.h"
#include "cluster/hostfile.h"
#include "cluster/place.h"
#include "cluster/topo_ranks.h"
#include "coordinator/core.h"
#include "coordinator/replica/route.h"
#include "engine/model/lora.h"

/* How the model is cut and run. */
struct model_options {
    int64_t tp, pp, threads, context, max_batch_tokens, max_seqs, kv_tokens;
    int32_t kv_type;         /* enum kv_type */
    int32_t activations;     /* 0 q8, 1 f32 */
    int32_t wire;            /* 0 auto, 1 shm, 2 mpi */
    int32_t exact;           /* 0 on, 1 off */
    int32_t experts;         /* 0 auto, 1 cut, 2 whole */
    int32_t wire_type;       /* 0 auto, else 1 + enum trn_wire_type */
    bool prefix_cache;
    int64_t speculate;
    const char *isa, *device, *shard_cache;
    const char *lora;        /* "NAME=PATH,...": adapters */
    int64_t shard_cache_size;
    double comm_timeout;
};

/* Where the workers are and how they are reached. */
struct cluster_options {
    int32_t launch;          /* 0 managed, 1 external */
    int64_t ranks, replicas;
    const char *topo, *hostfile, *mpirun_args, *listen, *key_file, *tls_cert, *tls_key, *tls_ca, *log_level;
    double load_timeout, rejoin_timeout, recovery_timeout, stall_timeout;
};

#define EXPERTS_NAMES "auto|cut|whole"
#define EXPERTS_HELP "of each layer on several ranks: every expert cut inside, or each whole on one of them (other bits, the same for every cut); auto: cut inside, with --exact off as the planner finds faster"
/* What --exact and --experts ask of the planner: sums in another order, which whole experts have, are not its to choose where bits must stay. */
enum clu_experts options_experts(int32_t exact, int32_t experts);

/* Tables whose offsets are into a struct beginning with model_options, then cluster_options. */
struct common_options { struct model_options model; struct cluster_options cluster; };
extern const struct conf_opt model_option_table[], cluster_option_table[];
extern const struct conf_opt adapter_option_table[]; /* of commands that use adapters */

/* The placement that these options ask for: replica_conf.place's user. */
enum { OPTIONS_PATH = 1024 };

/* LoRA adapters, as "NAME=PATH,..." names them. */
struct adapters {
    int32_t n;
    const char *names[LIMIT_ADAPTERS + 1], *paths[LIMIT_ADAPTERS]; /* in text; names end with NULL */
    uint64_t sums[LIMIT_ADAPTERS];
    char *text; /* Own: adapters_free */
};
/* Names, paths, and that each suits the model (headers only). Err BAD_CONFIG, and those of eng_lora_open. */
MUST_USE enum err adapters_open(struct adapters *a, const char *said, const char *model_path);
/* As the engine takes them. */
struct eng_adapters adapters_of(const struct adapters *a);
void adapters_free(struct adapters *a);

struct placement {
    const struct common_options *o;
    const char *model_path;
    struct model_info info;
    uint64_t fingerprint;       /* of the model at our start: every rank, also of a later job, must find the same */
    struct adapters adapters;   /* Own: placement_close */
    int32_t context;            /* out: decided */
    int32_t n_blocks;           /* of the first load: later ones have no more, so that replicas are alike; 0: none yet */
    int32_t sharing;            /* replicas that share one host's memory and cores */
    struct clu_hostfile order;  /* of the hosts, where it is not the hostfile's (hosts_topo.h) */
    /* KV caches of replicas that this model is loaded beside: promised, whether touched yet or not */
    struct { char host[64]; int64_t bytes; } taken[LIMIT_RANKS];
    int32_t n_taken;
    char tls[3][OPTIONS_PATH]; /* certificate, key, CA: where they lie, from the root; "" where they were named so */
    int32_t depth;              /* of the sequences that speed is foretold for; 0: half the context, at most 512 */
    int64_t telemetry_us;       /* between two heartbeats; 0: a second */
    struct clu_wire slowest;    /* out: the slowest link between two hosts of the last placement; zeros: there is one host */
    struct clu_guess guess;     /* .measured: of this machine's processors, taken for those that --topo does not name */
    struct plan_inputs *inputs; /* where guess.measured: of the last placement, for placement_measured. Own: free() */
    /* [replica's thread] of each replica: what its placement promises, and what was said of it last */
    struct clu_forecast forecast[ROUTE_REPLICAS];
    struct { enum clu_term term; int64_t us; } said[ROUTE_REPLICAS];
};
/* Headers only: info, and that the cut is possible when the number of ranks is known. Without --tp and --pp the cut is the planner's
 * (cluster/place.h), made once the ranks have said what they have. Err: see eng_engine_grid. */
MUST_USE enum err placement_open(struct placement *p, const struct common_options *o, const char *model_path);
void placement_close(struct placement *p);
/* replica_conf.on_pace: says once which term was wrong when steps take more or less than was promised by a quarter (pace.c). */
void placement_pace(void *user, const struct replica_pace *p);
/* The processors were measured again (guess.measured must have been set before): what the last placement promises with these figures, in
 * forecast[0]; the cut stays. */
void placement_measured(struct placement *p, const struct clu_guess *guess);
enum err placement_place(void *user, const struct msg_hello hellos[], int32_t n, struct msg_load_plan *plan);

/* Ranks that a managed start needs for each replica: tp x pp, or its share of the hostfile's slots. Err BAD_CONFIG. */
MUST_USE enum err options_ranks(const struct common_options *o, int32_t *n);
/* Fill what cluster options decide of a core_conf. program: our own path, kept by the caller. */
MUST_USE enum err options_core(const struct common_options *o, struct placement *p, const char *program, struct core_conf *out);
/* A number for the values of these options (names end with NULL), and what came before: differs when one of them does. */
uint64_t options_hash(const struct common_options *o, const char *const names[], uint64_t before);
/* Of all that decides what workers load, and of all that decides an answer's bits. */
uint64_t options_fit_load(const struct common_options *o, const struct placement *p);
uint64_t options_fit_answers(const struct common_options *o, const struct placement *p, const char *chat_template, const char *sampling);
/* An address for the worker plane: loopback when all ranks are local, with a hostfile the one that faces its hosts (cluster/facing.h), else this host's
 * first. Logged. Err BAD_CONFIG: hosts are reached from different addresses, or there is none. */
MUST_USE enum err options_listen(const struct common_options *o, bool local, char out[128]);
/* Our own executable; out[4096]. */
void options_program(char out[4096]);

/* What a command with workers begins with: its options into *o (a struct whose first member it is), --log-level. *done: --help was asked for
 * and given, there is nothing left to do. args: as conf_parse; such a command has one at least. */
MUST_USE enum err options_begin(const struct conf_table *t, int argc, char **argv, struct common_options *o, const char *args[], bool *done);
MUST_USE enum err options_log_level(const char *level);

/* The cluster of a command that is soon over: its coordinator in this process, without a gateway. Between _open and _start the caller may
 * change .core_conf; own_cluster_close takes a zeroed one, too. */
struct own_cluster {
    struct placement place;
    struct core_conf core_conf;
    struct crd_core *core; /* NULL until started */
    char listen[128], program[4096];
};
MUST_USE enum err own_cluster_open(struct own_cluster *c, const struct common_options *o, const char *model);
MUST_USE enum err own_cluster_start(struct own_cluster *c);
void own_cluster_close(struct own_cluster *c);
/* SIGINT, SIGTERM -> options_stop() true; a second one ends the process. SIGHUP, unless it is ignored, is the same but for its second. */
void options_catch_signals(void);
bool options_stop(void);

/* replica_conf.on_change. Load progress, one line: how much, how fast, how long still, who is slowest; on a terminal redrawn, else every 5 s;
 * then what each rank holds. _brief, for commands that are soon over: not the latter, and nothing of the first second (five, without a terminal). */
void progress_brief(void *user, int32_t replica, enum replica_state state, const struct replica_rank ranks[], int32_t n, const char *text);
void progress_on_change(void *user, int32_t replica, enum replica_state state, const struct replica_rank ranks[], int32_t n, const char *text);

#endif
