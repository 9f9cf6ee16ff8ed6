/* process.h: this process: its executable, and the signals that end it. */
#ifndef CLI_PROCESS_H
#define CLI_PROCESS_H

#include <stdbool.h>

/* Our own executable; out[4096]. */
void process_program(char out[4096]);

/* SIGINT, SIGTERM -> process_stop() true; a second one ends the process, and the jobs it has started. SIGHUP, unless it is ignored, is the same but for its second. */
void process_catch_signals(void);
bool process_stop(void);

#endif
