/* SPDX-License-Identifier: GPL-2.0 OR Apache-2.0 */
/*
 * The trace: what a socket does about ACKs, held writes and timers, told as it happens.
 *
 * Each socket has one small record of what it is in the middle of: data that waits for its ACK, a write that the kernel
 * held, a timer that is running its handler, and quick and pingpong as they were last seen. When one of these ends, one
 * self-contained `struct trace_event` leaves the kernel. What it is called is decided in user space
 * (diagnosis/tracing.py): here nothing is judged, only left out where it was shorter than `slow_ns`.
 *
 * Laws
 *  - Every path of a cgroup_skb program returns PASS: anything else would cut the host off.
 *  - No program changes a socket or a packet.
 *  - An event that finds no room is counted.
 *
 * cgroup_skb/egress runs after the kernel has accounted for the ACK that a segment carries, before it moves snd_nxt over
 * the segment's bytes; cgroup_skb/ingress runs before the socket has seen the segment.
 */
#include "trace_state.h"

char LICENSE[] SEC("license") = "GPL";

#define MODE(mode, tp, GET, GET_BITS)                                                          \
	do {                                                                                   \
		(mode)->quick = GET(tp, inet_conn.icsk_ack.quick);                             \
		(mode)->pingpong = GET(tp, inet_conn.icsk_ack.pingpong);                       \
		(mode)->ato = GET_BITS(tp, inet_conn.icsk_ack.ato);                            \
		(mode)->route_quickack = 2;                                                    \
		if (bpf_core_field_exists((tp)->inet_conn.icsk_ack.dst_quick_ack))             \
			(mode)->route_quickack = GET_BITS(tp, inet_conn.icsk_ack.dst_quick_ack); \
	} while (0)

/* An event with all but its segment filled in; the caller fills that in and submits it. */
static __always_inline struct trace_event *begin(struct traced_socket *socket, u8 what, u64 now)
{
	struct trace_event *event = bpf_ringbuf_reserve(&events, sizeof(*event), 0);

	if (!event) {
		__sync_fetch_and_add(&totals.lost, 1);
		return 0;
	}
	event->now.time_ns = now;
	event->now.flow = socket->flow;
	event->held = socket->held;
	event->end = socket->end;
	event->data_ns = socket->data_ns;
	event->timer_ns = socket->timer_ns;
	event->before = socket->mode;
	event->route_quickack = socket->mode.route_quickack;
	event->what = what;
	event->happened = socket->happened;
	event->timer = socket->timer;
	return event;
}

static __always_inline void tell_segment(struct traced_socket *socket, struct __sk_buff *skb, struct tcp_sock *tp,
					 const struct segment *segment, u8 kind, u8 what, u64 now)
{
	struct trace_event *event = begin(socket, what, now);

	if (!event)
		return;
	describe_segment(&event->now, skb, tp, segment, kind);
	bpf_ringbuf_submit(event, 0);
}

static __always_inline bool in_pingpong(const struct traced_socket *socket, const struct ack_mode *mode)
{
	return mode->pingpong >= (socket->end.pingpong_threshold ?: 1);
}

/* Each ACK spends some of the budget and each answer raises pingpong: what turns neither on nor off is no news. */
static __always_inline bool news(const struct traced_socket *socket, const struct ack_mode *now)
{
	const struct ack_mode *was = &socket->mode;

	if (settings.every_ack && (now->quick != was->quick || now->pingpong != was->pingpong || now->ato != was->ato))
		return true;
	if (!was->ato)
		return false; /* no data had come yet: the first always starts a budget (tcp_event_data_recv) */
	return in_pingpong(socket, now) != in_pingpong(socket, was) || !now->quick != !was->quick ||
	       now->route_quickack != was->route_quickack;
}

/* The mode as it was judged: at ingress another CPU may be changing it. */
static __always_inline void submit_change(struct trace_event *event, const struct ack_mode *mode)
{
	event->now.quick = mode->quick;
	event->now.pingpong = mode->pingpong;
	event->now.ato = mode->ato;
	event->route_quickack = mode->route_quickack;
	bpf_ringbuf_submit(event, 0);
}

static __always_inline void look(struct traced_socket *socket, struct __sk_buff *skb, struct tcp_sock *tp,
				 const struct segment *segment, u8 kind, u64 now)
{
	struct trace_event *event;
	struct ack_mode mode;

	MODE(&mode, tp, DIRECT, DIRECT_BITS);
	if (news(socket, &mode) && (event = begin(socket, MODE_CHANGED, now))) {
		describe_segment(&event->now, skb, tp, segment, kind);
		submit_change(event, &mode);
	}
	socket->mode = mode;
	socket->happened = 0;
}

static __always_inline struct traced_socket *admit(u64 key, struct __sk_buff *skb, struct tcp_sock *tp,
						   const struct segment *segment, bool sent)
{
	struct sock *sk = &tp->inet_conn.icsk_inet.sk;
	struct net *net = sk->__sk_common.skc_net.net;
	struct traced_socket *socket;
	u32 zero = 0, payload;

	socket = bpf_map_lookup_elem(&blank, &zero);
	if (!socket || bpf_map_update_elem(&sockets, &key, socket, BPF_ANY)) {
		__sync_fetch_and_add(&totals.refused, 1);
		return 0;
	}
	socket = bpf_map_lookup_elem(&sockets, &key);
	if (!socket)
		return 0;
	IDENTITY(&socket->end, sk, BPF_CORE_READ);
	socket->end.netns = net->ns.inum;
	socket->end.cgroup_id = bpf_skb_cgroup_id(skb);
	if (bpf_core_field_exists(net->ipv4.sysctl_tcp_pingpong_thresh))
		socket->end.pingpong_threshold = net->ipv4.sysctl_tcp_pingpong_thresh;
	/* Where the numbers began. Bytes that leave now for the first time are in bytes_sent, not in snd_nxt. */
	payload = tp->bytes_sent - tp->bytes_retrans;
	if (sent && segment->seq == tp->snd_nxt)
		payload -= segment->bytes;
	socket->end.first_sent = tp->snd_nxt - payload - 1;
	if (sent && segment->flags & SYN)
		socket->end.first_sent = segment->seq;
	socket->end.first_received = tp->rcv_nxt - (u32)tp->bytes_received - 1;
	if (!sent && segment->flags & SYN)
		socket->end.first_received = segment->seq;
	socket->received_end = tp->rcv_nxt;
	socket->flow = __sync_fetch_and_add(&totals.flows, 1) + 1;
	MODE(&socket->mode, tp, DIRECT, DIRECT_BITS);
	return socket;
}

/* The record of a segment's socket, made if there is none; null if the segment is not to be traced. */
static __always_inline struct traced_socket *record_of(struct __sk_buff *skb, struct tcp_sock *tp,
						       struct segment *segment, bool sent)
{
	struct sock *sk = &tp->inet_conn.icsk_inet.sk;
	struct traced_socket *socket;
	u64 key = (u64)(long)tp;

	if (!parse(skb, segment)) {
		__sync_fetch_and_add(&totals.unparsed, 1);
		return 0;
	}
	socket = bpf_map_lookup_elem(&sockets, &key);
	if (socket && socket->end.local_port == sk->__sk_common.skc_num &&
	    socket->end.remote_port == bpf_ntohs(sk->__sk_common.skc_dport))
		return socket;
	return admit(key, skb, tp, segment, sent); /* a new socket, or the address of a closed one, used again */
}

static __always_inline void ack_left(struct traced_socket *socket, struct __sk_buff *skb, struct tcp_sock *tp,
				     const struct segment *segment, u64 now)
{
	if (!socket->data_ns || !(segment->flags & ACK) || before(segment->ack, socket->data_end))
		return;
	if (settings.every_ack || socket->timer_ns || now - socket->data_ns >= settings.slow_ns)
		tell_segment(socket, skb, tp, segment, SENT, ACK_SENT, now);
	/* Data may have come that the socket had not seen when it wrote this ACK. */
	socket->data_ns = before(segment->ack, socket->received_end) ? socket->later_data_ns : 0;
	socket->data_end = socket->received_end;
	socket->timer_ns = 0;
}

static __always_inline void data_left(struct traced_socket *socket, struct __sk_buff *skb, struct tcp_sock *tp,
				      const struct segment *segment, u64 now)
{
	u32 end = segment->seq + segment->bytes;

	if (socket->held.time_ns && now - socket->held.time_ns >= settings.slow_ns)
		tell_segment(socket, skb, tp, segment, SENT, WRITE_RELEASED, now);
	socket->held.time_ns = 0;
	if (tp->write_seq == end)
		return;
	describe_segment(&socket->held, skb, tp, segment, SENT);
	socket->held.time_ns = now;
}

SEC("cgroup_skb/egress")
int trace_sent(struct __sk_buff *skb)
{
	struct tcp_sock *tp = socket_in_scope(skb, settings.netns, settings.port);
	struct traced_socket *socket;
	struct segment segment;
	u64 now;

	if (!tp)
		return PASS;
	socket = record_of(skb, tp, &segment, true);
	if (!socket || segment.flags & RST)
		return PASS;
	now = bpf_ktime_get_ns();
	if (socket->timer || (segment.bytes && before(segment.seq, tp->snd_nxt)))
		tell_segment(socket, skb, tp, &segment, SENT, SENT_AGAIN, now);
	ack_left(socket, skb, tp, &segment, now);
	if (segment.bytes && !before(segment.seq, tp->snd_nxt))
		data_left(socket, skb, tp, &segment, now);
	if (segment.bytes)
		socket->happened |= DATA_SENT;
	look(socket, skb, tp, &segment, SENT, now);
	return PASS;
}

static __always_inline bool congestion_experienced(struct __sk_buff *skb)
{
	u8 *data = (u8 *)(long)skb->data, *end = (u8 *)(long)skb->data_end;

	if (data + 2 > end)
		return false;
	return ((skb->protocol == bpf_htons(ETH_P_IP) ? data[1] : data[1] >> 4) & ECN_MASK) == ECN_MASK;
}

SEC("cgroup_skb/ingress")
int trace_received(struct __sk_buff *skb)
{
	struct tcp_sock *tp = socket_in_scope(skb, settings.netns, settings.port);
	struct traced_socket *socket;
	struct segment segment;
	u32 end, expected;
	u64 now;

	if (!tp)
		return PASS;
	socket = record_of(skb, tp, &segment, false);
	if (!socket || segment.flags & RST)
		return PASS;
	if (segment.flags & SYN) {
		socket->end.first_received = segment.seq;
		socket->received_end = segment.seq + 1;
		return PASS;
	}
	now = bpf_ktime_get_ns();
	look(socket, skb, tp, &segment, RECEIVED, now);
	/* Segments may wait in the backlog, so the socket itself can be behind what has come. */
	expected = before(socket->received_end, tp->rcv_nxt) ? tp->rcv_nxt : socket->received_end;
	end = segment.seq + segment.bytes + (segment.flags & FIN);
	if (congestion_experienced(skb))
		socket->happened |= CONGESTION_MARK;
	if (segment.flags & FIN)
		socket->happened |= FIN_RECEIVED;
	if (before(segment.seq, tp->rcv_nxt) || before(expected, segment.seq) ||
	    before(tp->rcv_wup + tp->rcv_wnd, end))
		socket->happened |= OUT_OF_ORDER;
	if (end == segment.seq)
		return PASS;
	socket->happened |= DATA_RECEIVED;
	if (before(expected, segment.seq) || !before(expected, end))
		return PASS; /* acknowledged at once (tcp_data_queue) */
	if (!socket->data_ns) {
		socket->data_ns = now;
		socket->data_end = end;
	}
	socket->later_data_ns = now;
	socket->received_end = end;
	return PASS;
}

/* From here on: raw tracepoints. */

static __always_inline struct traced_socket *known(struct tcp_sock *tp)
{
	u64 key = (u64)(long)tp;

	return bpf_map_lookup_elem(&sockets, &key);
}

static __always_inline void learn_owner(struct traced_socket *socket)
{
	if (socket->owner_known)
		return;
	socket->owner_known = 1;
	socket->end.pid = bpf_get_current_pid_tgid() >> 32;
	bpf_get_current_comm(socket->end.command, sizeof(socket->end.command));
}

/* send() has returned: does the kernel still hold some of it? */
SEC("raw_tp/sock_send_length")
int trace_written(struct bpf_raw_tracepoint_args *ctx)
{
	struct tcp_sock *tp = (struct tcp_sock *)ctx->args[0];
	struct traced_socket *socket = known(tp);

	if (!socket)
		return 0;
	learn_owner(socket);
	if (!socket->held.time_ns && BPF_CORE_READ(tp, write_seq) != BPF_CORE_READ(tp, snd_nxt)) {
		describe_moment(&socket->held, tp, WRITE_HELD);
		socket->held.time_ns = bpf_ktime_get_ns();
	}
	return 0;
}

/* A program has taken data: a server that has not answered yet is known by this. */
SEC("raw_tp/tcp_rcv_space_adjust")
int trace_read(struct bpf_raw_tracepoint_args *ctx)
{
	struct traced_socket *socket = known((struct tcp_sock *)ctx->args[0]);

	if (socket)
		learn_owner(socket);
	return 0;
}

#define SOCKET_OF(timer, field) \
	((struct tcp_sock *)((void *)(timer) - bpf_core_field_offset(struct inet_connection_sock, field)))

/* Of no worth without every_ack: arming is not delaying. */
SEC("raw_tp/timer_start")
int trace_timer_started(struct bpf_raw_tracepoint_args *ctx)
{
	struct timer_list *timer = (struct timer_list *)ctx->args[0];
	struct traced_socket *socket;
	struct trace_event *event;
	struct tcp_sock *tp;
	struct ack_mode mode;
	u64 now;

	if ((u64)(long)BPF_CORE_READ(timer, function) != settings.ack_timer)
		return 0;
	tp = SOCKET_OF(timer, icsk_delack_timer);
	socket = known(tp);
	if (!socket)
		return 0;
	now = bpf_ktime_get_ns();
	MODE(&mode, tp, PROBED, PROBED_BITS);
	if (news(socket, &mode) && (event = begin(socket, MODE_CHANGED, now))) {
		describe_moment(&event->now, tp, ACK_TIMER);
		submit_change(event, &mode);
		socket->mode = mode;
		socket->happened = 0;
	}
	if ((event = begin(socket, ACK_ARMED, now))) {
		describe_moment(&event->now, tp, ACK_TIMER);
		bpf_ringbuf_submit(event, 0);
	}
	return 0;
}

SEC("raw_tp/timer_expire_entry")
int trace_timer_fired(struct bpf_raw_tracepoint_args *ctx)
{
	struct timer_list *timer = (struct timer_list *)ctx->args[0];
	u64 function = (u64)(long)BPF_CORE_READ(timer, function);
	struct traced_socket *socket;
	struct tcp_sock *tp;

	if (!function)
		return 0;
	if (function == settings.ack_timer) {
		tp = SOCKET_OF(timer, icsk_delack_timer);
		socket = known(tp);
		if (socket && BPF_CORE_READ(tp, inet_conn.icsk_ack.pending) & ICSK_ACK_TIMER) {
			socket->timer_ns = bpf_ktime_get_ns();
			socket->happened |= TIMER_FIRED;
		}
	} else if (function == settings.write_timer) {
		if (!bpf_core_field_exists(((struct inet_connection_sock *)0)->icsk_retransmit_timer)) {
			totals.timers_hidden = 1;
			return 0;
		}
		tp = SOCKET_OF(timer, icsk_retransmit_timer);
		socket = known(tp);
		if (socket)
			socket->timer = BPF_CORE_READ(tp, inet_conn.icsk_pending);
	}
	return 0;
}

SEC("raw_tp/timer_expire_exit")
int trace_timer_done(struct bpf_raw_tracepoint_args *ctx)
{
	struct timer_list *timer = (struct timer_list *)ctx->args[0];
	struct traced_socket *socket;

	if (!settings.write_timer || (u64)(long)BPF_CORE_READ(timer, function) != settings.write_timer ||
	    !bpf_core_field_exists(((struct inet_connection_sock *)0)->icsk_retransmit_timer))
		return 0;
	socket = known(SOCKET_OF(timer, icsk_retransmit_timer));
	if (socket)
		socket->timer = 0;
	return 0;
}

SEC("raw_tp/inet_sock_set_state")
int trace_closed(struct bpf_raw_tracepoint_args *ctx)
{
	u64 key = (u64)ctx->args[0];

	if ((int)ctx->args[2] == TCP_CLOSE)
		bpf_map_delete_elem(&sockets, &key);
	return 0;
}
