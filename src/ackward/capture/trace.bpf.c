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
#include "trace_sockets.h"
#include "trace_telling.h"

char LICENSE[] SEC("license") = "GPL";

static __always_inline void ack_left(struct traced_socket *socket, struct __sk_buff *skb, struct tcp_sock *tp,
				     const struct segment *segment, u64 now)
{
	if (!socket->data_ns || !(segment->flags & ACK) || before(segment->ack, socket->data_end))
		return;
	if (settings.every_ack || socket->by_ack_timer || now - socket->data_ns >= settings.slow_ns)
		tell_segment(socket, skb, tp, segment, SENT, ACK_SENT, now);
	/* Data may have come that the socket had not seen when it wrote this ACK. */
	socket->data_ns = before(segment->ack, socket->received_end) ? socket->later_data_ns : 0;
	socket->data_end = socket->received_end;
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
	if (!socket)
		return PASS;
	now = bpf_ktime_get_ns();
	socket->timer = sending_timer(tp, &segment);
	socket->by_ack_timer = segment.flags & ACK && sent_by_ack_timer(tp, &segment, &socket->unacknowledged);
	if (socket->by_ack_timer)
		socket->happened |= TIMER_FIRED;
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
	if (!socket)
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
	data_arrives(tp, &socket->unacknowledged);
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

/* Some timer of the host: an address at which no socket lies is not in the map. Of no worth without every_ack: arming is
 * not delaying. */
SEC("raw_tp/timer_start")
int trace_timer_started(struct bpf_raw_tracepoint_args *ctx)
{
	struct tcp_sock *tp = (struct tcp_sock *)(ctx->args[0] - bpf_core_field_offset(struct inet_connection_sock,
											 icsk_delack_timer));
	struct traced_socket *socket;
	struct trace_event *event;
	struct ack_mode mode;
	u64 now;

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

/* The end of a connection is news if anything of it was told, or if a held write ends with it. */
SEC("raw_tp/inet_sock_set_state")
int trace_closed(struct bpf_raw_tracepoint_args *ctx)
{
	struct tcp_sock *tp = (struct tcp_sock *)ctx->args[0];
	struct traced_socket *socket = known(tp);
	u64 key = (u64)(long)tp, now;
	struct trace_event *event;

	if (!socket || (int)ctx->args[2] != TCP_CLOSE)
		return 0;
	now = bpf_ktime_get_ns();
	if ((settings.every_ack || socket->told ||
	     (socket->held.time_ns && now - socket->held.time_ns >= settings.slow_ns)) &&
	    (event = begin(socket, ENDED, now))) {
		describe_moment(&event->now, tp, WRITE_HELD);
		bpf_ringbuf_submit(event, 0);
	}
	bpf_map_delete_elem(&sockets, &key);
	return 0;
}
