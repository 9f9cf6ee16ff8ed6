/* fake_replica.h: executes step plans exactly as the ranks would and refuses (by a failed cmocka
 * assertion) what no rank may be asked: slots reused without an end, tables with holes, blocks
 * written while somebody else's step is in flight, KV that is not what the sequence's tokens make
 * it, references that are not allowed. Plans go over the real wire format. */
#ifndef TESTS_SCHED_FAKE_REPLICA_H
#define TESTS_SCHED_FAKE_REPLICA_H

#include "tests/sched/fake_model.h"

struct fake_replica;
struct fake_replica *fake_replica_open(const struct sched_conf *conf);
void fake_replica_close(struct fake_replica *f);
/* Execute; the result is kept until it is asked for. */
void fake_replica_send(struct fake_replica *f, const struct step_plan *plan);
/* The oldest result not yet delivered, NULL when there is none; valid until the next call. */
const struct step_result *fake_replica_deliver(struct fake_replica *f);
int32_t fake_replica_in_flight(const struct fake_replica *f);

#endif
