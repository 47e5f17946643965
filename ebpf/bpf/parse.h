/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * From frame to facts: one pass, every read checked against the end of the frame. Nothing is judged here.
 */
#ifndef POLLUX_PARSE_H
#define POLLUX_PARSE_H

/* The VLAN identifier within a tag. */
#define VLAN_VID_MASK 0x0fff

struct cursor {
	void *at;
	void *end;
};

struct vlan_tag {
	__be16 tci;
	__be16 ethertype;
};

/* The common shape of hop-by-hop, routing and destination options headers (RFC 8200 §4). */
struct ipv6_option {
	__u8 next;
	__u8 len; /* in units of 8 octets, not counting the first 8 */
};

/* The fragment header (RFC 8200 §4.5). */
struct ipv6_fragment {
	__u8 next;
	__u8 reserved;
	__be16 offset; /* in its upper 13 bits */
	__be32 identification;
};

enum shape {
	SHAPE_IP,
	SHAPE_NON_IP,
	SHAPE_MALFORMED,
	SHAPE_TAG_DEPTH,
};

/* What the rules look at. An IPv4 address lies in the first 4 octets. */
struct facts {
	__u8 source[16];
	__u8 destination[16];
	struct cursor l4; /* behind the last header that was read */
	void *l2;
	bool ipv6;
	bool group;    /* the frame went to a group address */
	bool tagged;   /* in a VLAN; a priority tag (VID 0) is none (IEEE 802.1Q §6.9) */
	bool fragment; /* any but an unfragmented packet */
	bool later;    /* a fragment that is not the first: l4 means nothing then */
	__u8 protocol;
	__u8 hop_limit;
};

/* The next n octets, or NULL if the frame ends before. */
static __always_inline void *take(struct cursor *c, __u32 n)
{
	void *start = c->at;

	if (start + n > c->end)
		return NULL;
	c->at = start + n;
	return start;
}

static __always_inline enum shape parse_ipv4(struct cursor *c, struct facts *f)
{
	struct iphdr *ip = take(c, sizeof(*ip));

	if (!ip || ip->version != 4 || ip->ihl < 5)
		return SHAPE_MALFORMED;
	__builtin_memcpy(f->source, &ip->saddr, 4);
	__builtin_memcpy(f->destination, &ip->daddr, 4);
	f->protocol = ip->protocol;
	f->hop_limit = ip->ttl;
	f->fragment = ip->frag_off & bpf_htons(0x3fff); /* MF and offset; DF and the reserved bit aside */
	f->later = ip->frag_off & bpf_htons(0x1fff);
	c->at = ip; /* the verifier bounds ihl * 4, but not (ihl - 5) * 4 */
	if (!take(c, ip->ihl * 4))
		return SHAPE_MALFORMED;
	f->l4 = *c;
	return SHAPE_IP;
}

/*
 * A chain that is cut short or too long leaves the protocol at the last header reached: the addresses are
 * known by then, and they alone decide what is protected.
 */
static __always_inline enum shape parse_ipv6(struct cursor *c, struct facts *f)
{
	struct ipv6hdr *ip = take(c, sizeof(*ip));

	if (!ip || ip->version != 6)
		return SHAPE_MALFORMED;
	__builtin_memcpy(f->source, &ip->saddr, 16);
	__builtin_memcpy(f->destination, &ip->daddr, 16);
	f->protocol = ip->nexthdr;
	f->hop_limit = ip->hop_limit;

#pragma unroll
	for (int i = 0; i < IPV6_HEADERS_MAX; i++) {
		if (f->protocol == IPPROTO_FRAGMENT) {
			f->fragment = true;
			struct ipv6_fragment *fragment = take(c, sizeof(*fragment));
			if (!fragment)
				break;
			f->later = fragment->offset & bpf_htons(0xfff8);
			f->protocol = fragment->next;
			break;
		}
		if (f->protocol != IPPROTO_HOPOPTS && f->protocol != IPPROTO_ROUTING &&
		    f->protocol != IPPROTO_DSTOPTS)
			break;
		struct ipv6_option *option = take(c, sizeof(*option));
		if (!option)
			break;
		__u8 next = option->next;
		if (!take(c, 6 + option->len * 8))
			break;
		f->protocol = next;
	}
	f->l4 = *c;
	return SHAPE_IP;
}

static __always_inline enum shape parse(struct xdp_md *ctx, struct facts *f)
{
	struct cursor c = {.at = (void *)(long)ctx->data, .end = (void *)(long)ctx->data_end};
	struct ethhdr *eth = take(&c, sizeof(*eth));

	if (!eth)
		return SHAPE_NON_IP;
	f->l2 = eth;
	f->group = eth->h_dest[0] & 1;
	__be16 ethertype = eth->h_proto;

#pragma unroll
	for (int i = 0; i < VLAN_TAGS_MAX; i++) {
		if (ethertype != bpf_htons(ETH_P_8021Q) && ethertype != bpf_htons(ETH_P_8021AD))
			break;
		struct vlan_tag *tag = take(&c, sizeof(*tag));
		if (!tag)
			return SHAPE_MALFORMED;
		f->tagged |= (tag->tci & bpf_htons(VLAN_VID_MASK)) != 0;
		ethertype = tag->ethertype;
	}
	switch (ethertype) {
	case bpf_htons(ETH_P_IP):
		return parse_ipv4(&c, f);
	case bpf_htons(ETH_P_IPV6):
		f->ipv6 = true;
		return parse_ipv6(&c, f);
	case bpf_htons(ETH_P_8021Q):
	case bpf_htons(ETH_P_8021AD):
		return SHAPE_TAG_DEPTH;
	}
	return SHAPE_NON_IP;
}

#endif
