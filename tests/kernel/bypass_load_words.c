/* SPDX-License-Identifier: GPL-2.0 OR Apache-2.0 */
/* Bytes that notice when one is lost, doubled or out of place: 64-bit words, each its own number plus a salt. */
#include "bypass_load.h"

#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define WORDS (LARGEST / 8 + 2)

uint32_t next(uint32_t *state) /* xorshift32, Marsaglia 2003 */
{
	*state ^= *state << 13;
	*state ^= *state >> 17;
	return *state ^= *state << 5;
}

/* From 1 to LARGEST, each order of magnitude as often as the other. */
static size_t any_size(uint32_t *state)
{
	size_t most = 1ul << (next(state) % 19);

	return 1 + next(state) % most;
}

static void rest(uint32_t *state)
{
	if (next(state) % 1024 == 0)
		usleep(next(state) % 3000);
}

static void fill(uint64_t *words, uint64_t first, size_t count, uint64_t salt)
{
	for (size_t i = 0; i < count; i++)
		words[i] = first + i + salt;
}

static int is_stream(const uint64_t *words, uint64_t first, size_t count, uint64_t salt)
{
	uint64_t difference = 0;

	for (size_t i = 0; i < count; i++)
		difference |= words[i] ^ (first + i + salt);
	return !difference;
}

void *write_stream(void *argument)
{
	struct half *half = argument;
	uint64_t *words = malloc(WORDS * 8), at = 0;
	uint32_t state = half->seed | 1;

	while (at < half->bytes) {
		size_t size = any_size(&state);
		ssize_t sent;

		if (size > half->bytes - at)
			size = half->bytes - at;
		fill(words, at / 8, size / 8 + 2, half->salt);
		sent = send(half->fd, (char *)words + at % 8, size, MSG_NOSIGNAL);
		if (sent <= 0)
			fail("send");
		at += sent;
		rest(&state);
	}
	free(words);
	return NULL;
}

void *read_stream(void *argument)
{
	struct half *half = argument;
	uint64_t *words = malloc(WORDS * 8), *expected = malloc(WORDS * 8), at = 0;
	uint32_t state = (half->seed ^ 0x5bd1e995) | 1;

	while (at < half->bytes) {
		size_t size = any_size(&state);
		size_t before = at % 8;
		ssize_t got;

		if (size > half->bytes - at)
			size = half->bytes - at;
		got = half->polls ? polled(half->fd, (char *)words + before, size) :
				    recv(half->fd, (char *)words + before, size, 0);
		if (got < 0)
			fail("recv");
		if (got == 0)
			wrong("the stream ended early");
		if (before || got % 8) {
			fill(expected, at / 8, (before + got) / 8 + 1, half->salt);
			if (memcmp((char *)words + before, (char *)expected + before, got))
				wrong("bytes out of place");
		} else if (!is_stream(words, at / 8, got / 8, half->salt)) {
			wrong("bytes out of place");
		}
		at += got;
		rest(&state);
	}
	free(words);
	free(expected);
	return NULL;
}
