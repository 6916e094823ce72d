/* SPDX-License-Identifier: GPL-2.0 OR Apache-2.0 */
/*
 * Which of its timers sent a segment, as the socket shows it while the segment leaves (cgroup_skb/egress).
 *
 * A timer that goes off is taken out of its wheel before its handler runs (expire_timers, detach_timer), and the handler
 * sends before it arms anything again. So neither the timers of the whole host need to be watched, nor an address of the
 * kernel be known. A handler that finds the socket held by a program leaves a flag, and is run when the program lets go
 * (tcp_release_cb): what the program sends until then is its own.
 */
#ifndef ACKWARD_TCP_TIMERS_H
#define ACKWARD_TCP_TIMERS_H

#include "tcp_segment.h"

enum write_timer { RETRANSMISSION = 1, ZERO_WINDOW_PROBE = 3, LOSS_PROBE = 5, REORDERING = 6 }; /* ICSK_TIME_* */

/* Where Linux keeps the write timer since 6.19. */
struct sock___write_timer {
	struct timer_list tcp_retransmit_timer;
} __attribute__((preserve_access_index));

static __always_inline bool waits(struct timer_list *timer)
{
	return timer->entry.pprev;
}

static __always_inline bool deferred(struct tcp_sock *tp, u64 flag)
{
	return tp->inet_conn.icsk_inet.sk.sk_tsq_flags >> flag & 1;
}

static __always_inline bool write_timer_waits(struct tcp_sock *tp)
{
	if (bpf_core_field_exists(tp->inet_conn.icsk_retransmit_timer))
		return waits(&tp->inet_conn.icsk_retransmit_timer);
	return waits(&((struct sock___write_timer *)tp)->tcp_retransmit_timer);
}

/*
 * The write timer whose handler sends this segment (tcp_write_timer_handler); 0 if none does. The handler forgets what
 * was pending before a retransmission and before a window probe, and at no other time is nothing pending while segments
 * are on their way. A window probe is an empty segment below snd_una while bytes wait to be sent, or as many of them as the
 * window has room for (tcp_write_wakeup).
 */
static __always_inline u8 sending_timer(struct tcp_sock *tp, const struct segment *segment)
{
	u8 pending = tp->inet_conn.icsk_pending;

	if (write_timer_waits(tp) || deferred(tp, bpf_core_enum_value(enum tsq_enum, TCP_WRITE_TIMER_DEFERRED)))
		return 0;
	if (pending == LOSS_PROBE || pending == REORDERING)
		return pending;
	if (pending)
		return 0;
	if (tp->packets_out)
		return before(segment->seq, tp->snd_nxt) ? RETRANSMISSION : 0;
	if (before(segment->seq, tp->snd_una))
		return tp->write_seq != tp->snd_nxt ? ZERO_WINDOW_PROBE : 0;
	if (segment->bytes && segment->seq == tp->snd_una && bpf_core_field_exists(tp->inet_conn.icsk_probes_tstamp))
		return tp->inet_conn.icsk_probes_tstamp ? ZERO_WINDOW_PROBE : 0;
	return 0;
}

/* Of one socket: what it has received and not acknowledged. */
struct unacknowledged {
	u64 jiffies; /* no timer that expires then or earlier was armed for it; 0: nothing came yet */
	u32 acknowledged; /* as far as the last segment that it sent says */
	u32 unused;
};

/* At cgroup_skb/ingress, of data or a FIN. */
static __always_inline void data_arrives(struct tcp_sock *tp, struct unacknowledged *kept)
{
	if (tp->rcv_wup != tp->rcv_nxt)
		return;
	/* Before the first data ato is 0, and the timer of a FIN expires at once. */
	kept->jiffies = bpf_jiffies64() - !DIRECT_BITS(tp, inet_conn.icsk_ack.ato);
	kept->acknowledged = tp->rcv_wup;
}

/*
 * Whether the delayed-ACK timer sends this segment: it acknowledges something, and the timer was armed after that came and has
 * gone off (tcp_delack_timer). A timer that ran out with nothing pending looks the same, but for what is acknowledged.
 */
static __always_inline bool sent_by_ack_timer(struct tcp_sock *tp, const struct segment *segment,
					      struct unacknowledged *kept)
{
	struct timer_list *timer = &tp->inet_conn.icsk_delack_timer;
	bool something = kept->jiffies && before(kept->acknowledged, segment->ack);
	u64 expires = timer->expires;

	kept->acknowledged = segment->ack;
	return something && !segment->bytes && !waits(timer) && kept->jiffies < expires &&
	       expires <= bpf_jiffies64() &&
	       !deferred(tp, bpf_core_enum_value(enum tsq_enum, TCP_DELACK_TIMER_DEFERRED));
}

#endif
