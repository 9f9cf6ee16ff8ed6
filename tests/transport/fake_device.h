/* fake_device.h: a device for tests of collectives: its memory is the host's, its stream a thread that does what it is told in order, so that
 * work is still to be done when the call that ordered it has returned. */
#ifndef TESTS_TRANSPORT_FAKE_DEVICE_H
#define TESTS_TRANSPORT_FAKE_DEVICE_H

#include "transport/device.h"

struct fake_device;
/* where: its address on the bus. */
struct fake_device *fake_device_open(const char *where);
void fake_device_close(struct fake_device *d); /* waits for all it was told */
const struct trn_device *fake_device_ops(struct fake_device *d);
/* What it is told between record and keep is kept, not done; replay: it is told that once more. */
void fake_device_record(struct fake_device *d);
void fake_device_keep(struct fake_device *d);
void fake_device_replay(struct fake_device *d);
/* Allocations that were not given back. */
int32_t fake_device_held(const struct fake_device *d);

#endif
