/* SPDX-License-Identifier: GPL-2.0 OR Apache-2.0 */
/*
 * Which services profit, learned from samples of their connections on plain TCP. A service is the cgroup and port of a server
 * and the cgroup of its clients, so that one client that blocks keeps only its own kind out; clients in other namespaces and
 * those in the server's own are learned apart. The rule:
 *  - Peers that take turns send about as many segments each way: join.
 *  - One that streams sends many segments for each that comes back. TCP is quick where it gathers many writes into a segment;
 *    past the stack each is handled by itself. Join where it gathers few: GATHERED at most between two namespaces,
 *    GATHERED_WITHIN in one, where a segment costs less. Writes are seen from 6.15 on; before, no stream joins.
 *  - A service of which an end was ever seen to wait in recv() itself, or to have options that a sock map ignores, does not
 *    join. That is looked at when a sample ends, as programs may change their sockets after connect(), and when a member closes.
 * docs/bypass.md has the figures. A sample ends after some segments, and fades when others come. What is kept: an entry for each
 * of SERVICES services, of which the least used go first; and a few bytes beside each socket that is being sampled.
 */
#ifndef ACKWARD_BYPASS_LEARNING_H
#define ACKWARD_BYPASS_LEARNING_H

#include "bypass_state.h"

#define SOL_SOCKET 1 /* include/uapi/asm-generic/socket.h */
#define O_NONBLOCK 04000 /* include/uapi/asm-generic/fcntl.h */
/* include/uapi/linux/bpf.h, since 6.15 */
#define SK_BPF_CB_FLAGS 1009
#define SK_BPF_CB_TX_TIMESTAMPING 1
#define BPF_SOCK_OPS_TSTAMP_SENDMSG_CB 20

#define SAMPLE 64	  /* segments, both ways together */
#define LONG_SAMPLE 256	  /* ... of a connection that streams */
#define SETTLED 32	  /* the first segments are acknowledged at once, so that TCP gathers nothing yet */
#define ENOUGH 16	  /* segments; each end of a sample tells of the same */
#define FADE 4096
#define TURNS 4		  /* at least one segment back for so many there */
#define GATHERED 6	  /* writes in a segment */
#define GATHERED_WITHIN 2 /* ... where both ends are in one namespace */
#define AGAIN 32	  /* one of so many connections of a service that is known is sampled again */

static __always_inline enum manner manner_of(const struct scope *scope, const struct service *service)
{
	struct learned *learned;

	if (!scope->learning)
		return JOINS;
	learned = bpf_map_lookup_elem(&services, service);
	if (!learned || __sync_fetch_and_add(&learned->connections, 1) % AGAIN == AGAIN - 1)
		return UNDECIDED;
	return learned->manner;
}

static __always_inline void show_writes(struct bpf_sock_ops *ops, int flags)
{
	bpf_setsockopt(ops, SOL_SOCKET, SK_BPF_CB_FLAGS, &flags, sizeof(flags));
}

static __always_inline void sample(struct bpf_sock_ops *ops, struct bpf_sock *socket, const struct pair *pair, bool server)
{
	struct sample sample = { .service = pair->service, .client = pair->client, .server = server };

	if (!bpf_sk_storage_get(&samples, socket, &sample, BPF_SK_STORAGE_GET_F_CREATE))
		return;
	bpf_sock_ops_cb_flags_set(ops, ops->bpf_sock_ops_cb_flags | BPF_SOCK_OPS_STATE_CB_FLAG | BPF_SOCK_OPS_RTT_CB_FLAG);
	show_writes(ops, SK_BPF_CB_TX_TIMESTAMPING);
}

/* At the end of a call of send() that TCP took bytes of. */
static __always_inline void see_write(struct bpf_sock *socket, struct tcp_sock *tp)
{
	struct sample *sample = bpf_sk_storage_get(&samples, socket, 0, 0);
	u32 sent = ((struct tcp_sock___bypass *)tp)->data_segs_out;

	if (!sample)
		return;
	if (sent < SETTLED) {
		sample->first = tp->write_seq;
		sample->sent = sent;
		sample->carried = tp->bytes_sent;
	} else {
		sample->writes++;
		sample->written = tp->write_seq;
	}
}

/*
 * A reader that blocks in recv() gets EAGAIN from tcp_msg_wait_data() (net/ipv4/tcp_bpf.c) when it is woken for anything but
 * data: the ACK of its own FIN, a reset, room for another thread's write. One that polls gets it anyway, and asks again.
 */
static __always_inline bool blocks(struct tcp_sock *tp)
{
	struct socket___bypass *socket = BPF_CORE_READ((struct sock___bypass *)tp, sk_socket);

	return !(BPF_CORE_READ(socket, file, f_flags) & O_NONBLOCK);
}

/* Options that the functions of a sock map ignore: what a program set them for would not happen. */
static __always_inline bool peculiar(struct tcp_sock *tp)
{
	struct sock___bypass *sk = (void *)tp;

	return BPF_CORE_READ(sk, sk_rcvlowat) > 1 || BPF_CORE_READ(sk, sk_peek_off) >= 0 ||
	       BPF_CORE_READ_BITFIELD_PROBED((struct tcp_sock___bypass *)tp, recvmsg_inq) ||
	       BPF_CORE_READ(sk, __sk_common.skc_flags) &
		       1UL << bpf_core_enum_value(enum sock_flags___bypass, SOCK_ZEROCOPY___bypass);
}

static __always_inline bool take_turns(u64 there, u64 back)
{
	return there * TURNS >= back && back * TURNS >= there;
}

/* Whether the average segment is that of so many average writes at most. */
static __always_inline bool gathers_at_most(const struct learned *learned, u64 writes)
{
	return learned->writes && learned->carried * learned->writes <= learned->written * learned->sent * writes;
}

/* What an end by itself calls for. One that was not accepted yet, or that no program has any more, shows nothing. */
static __always_inline enum manner manner_of_end(const struct scope *scope, struct tcp_sock *tp)
{
	if (!BPF_CORE_READ((struct sock___bypass *)tp, sk_socket))
		return UNDECIDED;
	return peculiar(tp) ? PECULIAR : scope->pollers_only && blocks(tp) ? BLOCKING : JOINS;
}

static __always_inline void overrule(u32 *called_for, enum manner manner)
{
	if (manner > *called_for)
		*called_for = manner;
}

/* A member that leaves: later ones of its service do not join if its program has come to block. */
static __always_inline void reconsider(const struct scope *scope, struct bpf_sock *socket, struct tcp_sock *tp)
{
	struct end *end = bpf_sk_storage_get(&ends, socket, 0, 0);
	struct learned *learned = end ? bpf_map_lookup_elem(&services, &end->service) : NULL;
	enum manner manner = manner_of_end(scope, tp);

	if (!learned || manner <= JOINS)
		return;
	overrule(end->server ? &learned->server : &learned->client, manner);
	overrule(&learned->manner, manner);
}

static __always_inline void decide(struct learned *learned, bool within)
{
	u32 either = learned->server > learned->client ? learned->server : learned->client;

	if (either > JOINS)
		learned->manner = either;
	else if (!learned->server || !learned->client || learned->segments < ENOUGH)
		return;
	else if (take_turns(learned->turns, learned->segments) ||
		 gathers_at_most(learned, within ? GATHERED_WITHIN : GATHERED))
		learned->manner = JOINS;
	else
		learned->manner = STREAMING;
}

/* The other end of a sampled server's, if it is there still: its address may be another socket's by now. */
static __always_inline struct tcp_sock *client_of(const struct sample *sample)
{
	struct sock___bypass *client = (void *)sample->client.socket;

	return BPF_CORE_READ(client, __sk_common.skc_cookie.counter) == sample->client.cookie ? (void *)client : NULL;
}

/* Two samples that end at once may lose one of them: it is evidence, not an account. */
static __always_inline void learn(const struct scope *scope, struct bpf_sock_ops *ops, struct bpf_sock *socket,
				  struct tcp_sock *tp, bool ends)
{
	struct sample *sample = bpf_sk_storage_get(&samples, socket, 0, 0);
	u32 there = ((struct tcp_sock___bypass *)tp)->data_segs_out;
	u32 back = ((struct tcp_sock___bypass *)tp)->data_segs_in;
	struct learned first = {}, *learned;
	struct tcp_sock *client;
	enum manner manner;

	if (!sample || (!ends && there + back < (take_turns(there, back) ? SAMPLE : LONG_SAMPLE)))
		return;
	manner = manner_of_end(scope, tp);
	learned = bpf_map_lookup_elem(&services, &sample->service);
	if (!learned) {
		bpf_map_update_elem(&services, &sample->service, &first, BPF_NOEXIST);
		learned = bpf_map_lookup_elem(&services, &sample->service);
	}
	if (learned && manner) {
		if (learned->segments > FADE) {
			learned->turns /= 2;
			learned->segments /= 2;
			learned->writes /= 2;
			learned->written /= 2;
			learned->sent /= 2;
			learned->carried /= 2;
		}
		learned->turns += there < back ? there : back;
		learned->segments += there < back ? back : there;
		if (sample->writes) {
			learned->writes += sample->writes;
			learned->written += sample->written - sample->first;
			learned->sent += there - sample->sent;
			learned->carried += tp->bytes_sent - sample->carried;
		}
		overrule(sample->server ? &learned->server : &learned->client, manner);
		/* An end that only reads measures no round trips: its sample ends when it closes. The other one looks at it. */
		client = sample->server ? client_of(sample) : NULL;
		if (client)
			overrule(&learned->client, manner_of_end(scope, client));
		decide(learned, sample->service.within);
	}
	bpf_sk_storage_delete(&samples, socket);
	show_writes(ops, 0);
	bpf_sock_ops_cb_flags_set(ops, ops->bpf_sock_ops_cb_flags &
					       ~(BPF_SOCK_OPS_STATE_CB_FLAG | BPF_SOCK_OPS_RTT_CB_FLAG));
}

#endif
