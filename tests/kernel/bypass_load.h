/* SPDX-License-Identifier: GPL-2.0 OR Apache-2.0 */
/* What the parts of bypass_load share. */
#ifndef BYPASS_LOAD_H
#define BYPASS_LOAD_H

#define _GNU_SOURCE
#include <errno.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

enum kind { TRANSFER = 1, REQUEST, ASK, STREAM };

/* What a client says first. */
struct opening {
	uint32_t kind, seed;
	uint64_t bytes;
};

#define LARGEST (256 << 10) /* bytes of a write or a read */

/* bypass_load.c */
_Noreturn void fail(const char *what);	/* a call failed */
_Noreturn void wrong(const char *what); /* what arrived is not right */
uint64_t now_ns(void);
int connected(uint32_t number);
void until(int fd, short events);
ssize_t polled(int fd, void *buffer, size_t size);
void whole(int fd, void *buffer, size_t size);
void all(int fd, const void *buffer, size_t size);

/* bypass_load_words.c: one direction of a connection as words that are their own numbers */
struct half {
	int fd;
	uint64_t bytes, salt;
	uint32_t seed;
	int polls; /* instead of waiting inside recv(), which something else than bytes may wake: hazard `wakeup` */
};

uint32_t next(uint32_t *state);
void *write_stream(void *half);
void *read_stream(void *half);

/* bypass_load_rounds.c: how quick it is */
void answer(int fd, size_t size);
void swallow(int fd);
void ask(size_t size, double seconds);
void stream(size_t size, double seconds, int cork);
void ask_within(const char *way, size_t size, double seconds);

#endif
