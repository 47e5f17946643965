// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * The first layer of the guard: a netfilter program at POSTROUTING, for IPv4 and IPv6, before every other
 * hook there. It sees every packet that the kernel's IP sends or forwards, with its own source address:
 * source NAT comes later.
 *
 * The packet is read through the kernel's own structures, whose offsets the loader takes from the running
 * kernel (BPF CO-RE): this type of program has no accessors in a form that aya can load.
 */
#include <stdbool.h>
#include <stddef.h>
#include <linux/bpf.h>
#include <linux/in.h>
#include <linux/ip.h>
#include <linux/ipv6.h>
#include <linux/netfilter.h>
#include <linux/udp.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#include "abi.h"
#include "verdicts.h"
#include "guard_verdicts.h"
#include "maps.h"
#include "lookup.h"

#pragma clang attribute push(__attribute__((preserve_access_index)), apply_to = record)

typedef struct {
	__s64 counter;
} atomic64_t;

struct sock_common {
	atomic64_t skc_cookie;
};

struct sock {
	struct sock_common __sk_common;
};

struct net_device {
	int ifindex;
};

struct sk_buff {
	struct sock *sk;
	unsigned char *head;
	__u32 tail;
	__u16 network_header;
	int skb_iif;
};

struct nf_hook_state {
	__u8 pf;
	struct net_device *out;
};

struct bpf_nf_ctx {
	const struct nf_hook_state *state;
	struct sk_buff *skb;
};

#pragma clang attribute pop

struct reader {
	unsigned char *ip; /* kernel address of the IP header */
	__u32 length;      /* octets from there that are not in fragments of the buffer */
};

static __always_inline bool read_at(const struct reader *r, __u32 offset, void *to, __u32 length)
{
	if (offset > r->length || length > r->length - offset)
		return false;
	return !bpf_probe_read_kernel(to, length, r->ip + offset);
}

#include "guard.h"

#define LAYER LAYER_NETFILTER

/* aya-obj knows no section of this type; the loader gives the type itself. */
SEC("socket")
int guard_netfilter(struct bpf_nf_ctx *ctx)
{
	struct sk_buff *skb = ctx->skb;
	const struct nf_hook_state *state = ctx->state;
	struct net_device *out = state->out;
	struct sock *sk = skb->sk;
	struct reader r = {.ip = skb->head + skb->network_header};
	struct sent s = {.in = skb->skb_iif, .out = out->ifindex};

	if (s.out == IFINDEX_LO || bpf_map_lookup_elem(&host_links, &s.out))
		return NF_ACCEPT;
	r.length = skb->tail - skb->network_header;
	if (state->pf == NFPROTO_IPV6 ? !read_ipv6(&r, &s) : !read_ipv4(&r, &s))
		return NF_ACCEPT;
	if (sk)
		s.cookie = sk->__sk_common.skc_cookie.counter;
	enum guard_verdict verdict = judge(&r, &s);
	if (verdict == GUARD_PASS)
		return NF_ACCEPT;
	count(LAYER, verdict);
	return verdict >= GUARD_DROP_CLEAR ? NF_DROP : NF_ACCEPT;
}

char _license[] SEC("license") = "Dual BSD/GPL";
