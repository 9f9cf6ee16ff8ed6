/* version.h: the program's version; the same as project(VERSION) in the top CMakeLists.txt.
 * CONTROL_VERSION, in control.h, is what the two sides of a session must share. */
#ifndef PROTO_VERSION_H
#define PROTO_VERSION_H

#define TESSERA_VERSION "0.1.0"

#endif
