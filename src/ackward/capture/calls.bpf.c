/* SPDX-License-Identifier: GPL-2.0 OR Apache-2.0 */
/*
 * What programs see of their connections: how long from a send() (its return) to the next recv() that gave bytes, whatever
 * carries them. Where both ends of a connection are on this host they are told apart and put together by their initial sequence
 * numbers, at any time of the connection's life:
 *
 *     peer = rcv_nxt - bytes_received      one more than the peer's initial number: a SYN takes one, and is no byte (a FIN
 *                                          counts as one: tcp_queue_rcv())
 *     own  = snd_una - bytes_acked         at the end that accepted one more than its own; where connect() was called the
 *                                          SYN's acknowledgement counts as a byte (tcp_snd_una_update()), so its own
 *
 * Thus own(server) = peer(client), and own(client) + 1 = peer(server): that is what tells the client.
 */
#include "cgroup.h"
#include "tcp_segment.h"

char LICENSE[] SEC("license") = "GPL";

#define TCP_CLOSE_WAIT 8
#define MSG_PEEK 0x2
#define MSG_DONTWAIT 0x40
#define MSG_ERRQUEUE 0x2000
#define EINTR 4
#define EAGAIN 11
#define EINPROGRESS 115
#define ERESTARTSYS 512 /* to ERESTART_RESTARTBLOCK: a signal; include/linux/errno.h */
#define ERESTART_LAST 516
#define FOREVER (~0UL >> 1) /* MAX_SCHEDULE_TIMEOUT: recv() may wait as long as it takes */
#define ENOUGH_BYTES 65536  /* told also where nobody takes turns */
#define FAILED (~0ULL)

/* A call. elapsed_ns: since the last send() had returned, 0 if nothing was asked; FAILED: the call did. */
struct call {
	u64 time_ns; /* CLOCK_MONOTONIC */
	u64 elapsed_ns;
	u32 socket;
	u32 bytes; /* received since this socket's last record */
};

/* A socket, when it is first seen. */
struct call_end {
	u32 socket; /* counts from 1 */
	u32 own;
	u32 peer;
	u32 netns;
	u16 family;
	u16 local_port;
	u16 remote_port;
	u16 in_cgroup;
	u8 local_address[16];
	u8 remote_address[16];
};

const volatile u64 wanted_cgroup; /* 0: none is asked for */

u64 lost; /* records that found no room */
u32 sockets;
/* Never set: so that the object keeps the types of its records. */
struct call *type_of_calls;
struct call_end *type_of_ends;

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 8 << 20);
} calls SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 4 << 20);
} ends SEC(".maps");

struct state {
	u64 asked_ns; /* 0: nothing is asked */
	u32 socket;
	u32 bytes;
};

/* Goes with its socket, and with us. */
struct {
	__uint(type, BPF_MAP_TYPE_SK_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, int);
	__type(value, struct state);
} states SEC(".maps");

#pragma clang attribute push(__attribute__((preserve_access_index)), apply_to = record)

struct tcp_sock___calls {
	u64 bytes_acked;
};

struct sock___calls {
	long sk_rcvtimeo;
};

#pragma clang attribute pop

/* Unlocked, so a number may be torn in the few nanoseconds between two stores; then this connection finds no other end. */
static __always_inline void describe(struct sock *sk, u32 number)
{
	struct tcp_sock *tp = (void *)sk;
	struct call_end end = { .socket = number };

	IDENTITY(&end, sk, BPF_CORE_READ);
	end.netns = BPF_CORE_READ(sk, __sk_common.skc_net.net, ns.inum);
	end.own = BPF_CORE_READ(tp, snd_una) - (u32)BPF_CORE_READ((struct tcp_sock___calls *)tp, bytes_acked);
	end.peer = BPF_CORE_READ(tp, rcv_nxt) - (u32)BPF_CORE_READ(tp, bytes_received);
	end.in_cgroup = wanted_cgroup && below_cgroup(cgroup_of(sk), wanted_cgroup);
	if (bpf_ringbuf_output(&ends, &end, sizeof(end), BPF_RB_NO_WAKEUP))
		__sync_fetch_and_add(&lost, 1);
}

static __always_inline struct state *state_of(struct sock *sk)
{
	struct state *state, fresh = {};
	u8 now;

	if (sk->sk_protocol != IPPROTO_TCP)
		return 0;
	state = bpf_sk_storage_get(&states, sk, 0, 0);
	if (state)
		return state;
	now = sk->__sk_common.skc_state;
	if (now != TCP_ESTABLISHED && now != TCP_CLOSE_WAIT)
		return 0;
	fresh.socket = __sync_fetch_and_add(&sockets, 1) + 1;
	state = bpf_sk_storage_get(&states, sk, &fresh, BPF_SK_STORAGE_GET_F_CREATE);
	if (state)
		describe(sk, fresh.socket);
	return state;
}

static __always_inline void tell(struct state *state, u64 now, u64 elapsed)
{
	struct call call = { now, elapsed, state->socket, state->bytes };

	if (bpf_ringbuf_output(&calls, &call, sizeof(call), BPF_RB_NO_WAKEUP))
		__sync_fetch_and_add(&lost, 1);
	state->bytes = 0;
}

static __always_inline int failed(struct sock *sk, int error)
{
	struct state *state;

	if (error == EINTR || error == EAGAIN || error == EINPROGRESS ||
	    (error >= ERESTARTSYS && error <= ERESTART_LAST))
		return 0;
	state = state_of(sk);
	if (state)
		tell(state, bpf_ktime_get_ns(), FAILED);
	return 0;
}

SEC("tp_btf/sock_send_length")
int wrote(u64 *ctx)
{
	struct sock *sk = (struct sock *)ctx[0];
	int result = ctx[1];
	struct state *state;

	if (result < 0)
		return failed(sk, -result);
	state = state_of(sk);
	/* The last one counts: when another thread has read the answer before this runs, the next request is timed right. */
	if (state)
		state->asked_ns = bpf_ktime_get_ns();
	return 0;
}

SEC("tp_btf/sock_recv_length")
int got(u64 *ctx)
{
	struct sock *sk = (struct sock *)ctx[0];
	int result = ctx[1], flags = ctx[2];
	struct state *state;
	u64 now;

	if (result == -EAGAIN && !(flags & MSG_DONTWAIT) && BPF_CORE_READ((struct sock___calls *)sk, sk_rcvtimeo) == FOREVER)
		result = -1; /* it was to wait, and did not */
	if (result < 0)
		return failed(sk, -result);
	if (!result || flags & (MSG_PEEK | MSG_ERRQUEUE))
		return 0;
	state = state_of(sk);
	if (!state)
		return 0;
	state->bytes += result;
	if (!state->asked_ns && state->bytes < ENOUGH_BYTES)
		return 0;
	now = bpf_ktime_get_ns();
	tell(state, now, state->asked_ns ? now - state->asked_ns : 0);
	state->asked_ns = 0;
	return 0;
}
