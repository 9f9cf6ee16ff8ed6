/* choices.h: options whose value is one of a few words (CONF_ENUM): the words as they are typed, and under the same numbers their names here. */
#ifndef CLI_CHOICES_H
#define CLI_CHOICES_H

#define ACTIVATIONS_NAMES "q8|f32"
enum { ACTIVATIONS_Q8, ACTIVATIONS_F32 };

#define EXACT_NAMES "on|off"
enum { EXACT_ON, EXACT_OFF };

#define EXPERTS_NAMES "auto|cut|whole"
enum { EXPERTS_AUTO, EXPERTS_CUT, EXPERTS_WHOLE };

#define WIRE_NAMES "auto|shm|mpi"
enum { WIRE_AUTO, WIRE_SHM, WIRE_MPI };

#define WIRE_TYPE_NAMES "auto|f32|f16|q8"
enum { WIRE_TYPE_AUTO, WIRE_TYPE_F32, WIRE_TYPE_F16, WIRE_TYPE_Q8 }; /* after the first, enum clu_wire_type (cluster/cost.h) plus one */

#define GENERATION_CONFIG_NAMES "auto|none"
enum { GENERATION_CONFIG_AUTO, GENERATION_CONFIG_NONE };

#endif
