/* pooling.h: how the hidden states of a prompt become one vector: that of its last token, or the mean of all. */
#ifndef PROTO_POOLING_H
#define PROTO_POOLING_H

enum step_pool { POOL_NONE, POOL_LAST, POOL_MEAN };

#endif
