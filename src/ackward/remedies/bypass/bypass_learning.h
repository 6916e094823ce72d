/* SPDX-License-Identifier: GPL-2.0 OR Apache-2.0 */
/* Which services profit, learned from their connections on plain TCP. */
#ifndef ACKWARD_BYPASS_LEARNING_H
#define ACKWARD_BYPASS_LEARNING_H

#include "bypass_state.h"

#define O_NONBLOCK 04000 /* include/uapi/asm-generic/fcntl.h */
/*
 * Learning. Peers that take turns send about as many segments each way; one that streams sends many for each that comes
 * back, and loses by joining unless its messages are large (docs/bypass.md). A sample ends after some segments, and fades
 * when others come.
 */
#define SAMPLE 64
#define ENOUGH 8
#define FADE 1024
#define TURNS 4	 /* at least one segment back for so many there */
#define AGAIN 32 /* one of so many connections of a service that is known is sampled again */

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

static __always_inline void sample(struct bpf_sock_ops *ops, struct bpf_sock *socket, struct service *service)
{
	if (bpf_sk_storage_get(&samples, socket, service, BPF_SK_STORAGE_GET_F_CREATE))
		bpf_sock_ops_cb_flags_set(ops, ops->bpf_sock_ops_cb_flags | BPF_SOCK_OPS_STATE_CB_FLAG |
						       BPF_SOCK_OPS_RTT_CB_FLAG);
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

/* Two samples that end at once may lose one of them: it is evidence, not an account. */
static __always_inline void learn(const struct scope *scope, struct bpf_sock_ops *ops, struct bpf_sock *socket,
				  struct tcp_sock *tp, bool ends)
{
	struct service *service = bpf_sk_storage_get(&samples, socket, 0, 0);
	u32 there = ((struct tcp_sock___bypass *)tp)->data_segs_out;
	u32 back = ((struct tcp_sock___bypass *)tp)->data_segs_in;
	struct learned first = {}, *learned;

	if (!service || (!ends && there + back < SAMPLE))
		return;
	learned = bpf_map_lookup_elem(&services, service);
	if (!learned) {
		bpf_map_update_elem(&services, service, &first, BPF_NOEXIST);
		learned = bpf_map_lookup_elem(&services, service);
	}
	/* One that closes before it was accepted shows nothing. */
	if (learned && BPF_CORE_READ((struct sock___bypass *)tp, sk_socket)) {
		if (learned->segments > FADE) {
			learned->turns /= 2;
			learned->segments /= 2;
		}
		learned->turns += there < back ? there : back;
		learned->segments += there < back ? back : there;
		if (peculiar(tp))
			learned->manner = PECULIAR;
		else if (scope->pollers_only && blocks(tp))
			learned->manner = BLOCKING;
		else if (learned->segments >= ENOUGH)
			learned->manner = learned->turns * TURNS >= learned->segments ? JOINS : STREAMING;
	}
	bpf_sk_storage_delete(&samples, socket);
	bpf_sock_ops_cb_flags_set(ops, ops->bpf_sock_ops_cb_flags &
					       ~(BPF_SOCK_OPS_STATE_CB_FLAG | BPF_SOCK_OPS_RTT_CB_FLAG));
}

#endif
