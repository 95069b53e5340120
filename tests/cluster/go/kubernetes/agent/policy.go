package main

import (
	"context"
	"fmt"
	"log"
	"sort"
	"strings"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/util/intstr"
)

// enforce writes the rules for this node's pods. Connections that exist are never cut, and what the node itself sends
// (kubelet's probes) is never filtered; both are as Kubernetes leaves them to the implementation.
func (a *agent) enforce(ctx context.Context) error {
	ruleset, err := a.rules()
	if err != nil || ruleset == a.ruleset {
		return err
	}
	// One transaction: there is no moment without rules. (`table` before `delete table` makes the latter never fail.)
	script := "table ip agent_masquerade\ndelete table ip agent_masquerade\n" + a.masquerade() +
		"table ip agent_policy\ndelete table ip agent_policy\n" + ruleset
	if _, err := run(ctx, script, "nft", "-f", "-"); err != nil {
		return err
	}
	a.ruleset = ruleset
	log.Printf("rules written: %d chains for pods", strings.Count(ruleset, "chain ")-1)
	return nil
}

// rules is the table of all policies that select a pod of this node.
func (a *agent) rules() (string, error) {
	pods, err := a.pods.List(labels.Everything())
	if err != nil {
		return "", err
	}
	policies, err := a.policies.List(labels.Everything())
	if err != nil {
		return "", err
	}
	sort.Slice(policies, func(i, j int) bool { return policies[i].UID < policies[j].UID })
	sort.Slice(pods, func(i, j int) bool { return pods[i].UID < pods[j].UID })
	pods = onNetwork(pods)
	var chains strings.Builder
	verdicts := map[networkingv1.PolicyType][]string{}
	for _, pod := range pods {
		if pod.Spec.NodeName != a.node {
			continue
		}
		for _, direction := range []networkingv1.PolicyType{networkingv1.PolicyTypeEgress, networkingv1.PolicyTypeIngress} {
			lines, isolated := a.allowed(pod, direction, policies, pods)
			if !isolated {
				continue
			}
			chain := strings.ToLower(string(direction)) + "_" + strings.ReplaceAll(pod.Status.PodIP, ".", "_")
			fmt.Fprintf(&chains, "\tchain %s {\n\t\t%s\n\t}\n", chain, strings.Join(append(lines, "drop"), "\n\t\t"))
			verdicts[direction] = append(verdicts[direction], pod.Status.PodIP+" : jump "+chain)
		}
	}
	forward := []string{"type filter hook forward priority 10; policy accept;", "ct state established,related accept"}
	// What a sender may send is then judged for the receiver, so `return` stands for "allowed" in the chains above.
	if jumps := verdicts[networkingv1.PolicyTypeEgress]; jumps != nil {
		forward = append(forward, "ip saddr vmap { "+strings.Join(jumps, ", ")+" }")
	}
	if jumps := verdicts[networkingv1.PolicyTypeIngress]; jumps != nil {
		forward = append(forward, "ip daddr vmap { "+strings.Join(jumps, ", ")+" }")
	}
	return fmt.Sprintf("table ip agent_policy {\n%s\tchain forward {\n\t\t%s\n\t}\n}\n",
		chains.String(), strings.Join(forward, "\n\t\t")), nil
}

// onNetwork leaves the pods that have an address of their own.
func onNetwork(pods []*corev1.Pod) []*corev1.Pod {
	var found []*corev1.Pod
	for _, pod := range pods {
		ended := pod.Status.Phase == corev1.PodSucceeded || pod.Status.Phase == corev1.PodFailed
		if pod.Status.PodIP != "" && !pod.Spec.HostNetwork && !ended {
			found = append(found, pod)
		}
	}
	return found
}

// allowed is one line per combination of peers and ports open to a pod in one direction, and whether any policy
// isolates it in that direction at all.
func (a *agent) allowed(
	pod *corev1.Pod, direction networkingv1.PolicyType, policies []*networkingv1.NetworkPolicy, pods []*corev1.Pod,
) (lines []string, isolated bool) {
	for _, policy := range policies {
		if policy.Namespace != pod.Namespace || !selects(&policy.Spec.PodSelector, pod.Labels) || !has(policy, direction) {
			continue
		}
		isolated = true
		if direction == networkingv1.PolicyTypeIngress {
			for _, rule := range policy.Spec.Ingress {
				lines = append(lines, a.lines("saddr", pod, rule.From, rule.Ports, policy.Namespace, pods)...)
			}
		} else {
			for _, rule := range policy.Spec.Egress {
				lines = append(lines, a.lines("daddr", pod, rule.To, rule.Ports, policy.Namespace, pods)...)
			}
		}
	}
	return lines, isolated
}

func has(policy *networkingv1.NetworkPolicy, direction networkingv1.PolicyType) bool {
	for _, present := range policy.Spec.PolicyTypes {
		if present == direction {
			return true
		}
	}
	return false
}

func selects(selector *metav1.LabelSelector, set map[string]string) bool {
	parsed, err := metav1.LabelSelectorAsSelector(selector)
	return err == nil && parsed.Matches(labels.Set(set))
}

// lines turns one rule of a policy into rules of nftables. `side` is the peer's address: saddr or daddr.
func (a *agent) lines(
	side string, pod *corev1.Pod, peers []networkingv1.NetworkPolicyPeer, ports []networkingv1.NetworkPolicyPort,
	namespace string, pods []*corev1.Pod,
) []string {
	if len(peers) == 0 {
		return portLines("", ports, pod) // from or to anywhere
	}
	var lines []string
	for _, peer := range peers {
		if peer.IPBlock != nil {
			match := "ip " + side + " " + peer.IPBlock.CIDR
			if except := peer.IPBlock.Except; len(except) > 0 {
				match += " ip " + side + " != { " + strings.Join(except, ", ") + " }"
			}
			lines = append(lines, portLines(match, ports, pod)...)
			continue
		}
		for _, other := range a.selected(peer, namespace, pods) {
			owner := pod // whose port a named port is: the receiver's
			if side == "daddr" {
				owner = other
			}
			lines = append(lines, portLines("ip "+side+" "+other.Status.PodIP, ports, owner)...)
		}
	}
	return lines
}

// selected are the pods that a peer names: by label, by the label of their namespace, or both.
func (a *agent) selected(peer networkingv1.NetworkPolicyPeer, namespace string, pods []*corev1.Pod) []*corev1.Pod {
	var found []*corev1.Pod
	for _, pod := range pods {
		if peer.NamespaceSelector == nil {
			if pod.Namespace != namespace {
				continue
			}
		} else if owner, err := a.namespaces.Get(pod.Namespace); err != nil || !selects(peer.NamespaceSelector, owner.Labels) {
			continue
		}
		if peer.PodSelector == nil || selects(peer.PodSelector, pod.Labels) {
			found = append(found, pod)
		}
	}
	return found
}

// portLines completes a match of the peer with each port that is allowed; without ports, all are.
func portLines(match string, ports []networkingv1.NetworkPolicyPort, owner *corev1.Pod) []string {
	if len(ports) == 0 {
		return []string{strings.TrimSpace(match + " return")}
	}
	var lines []string
	for _, port := range ports {
		protocol := "tcp"
		if port.Protocol != nil {
			protocol = strings.ToLower(string(*port.Protocol))
		}
		number := ""
		switch {
		case port.Port == nil:
			lines = append(lines, strings.TrimSpace(match+" meta l4proto "+protocol+" return"))
			continue
		case port.Port.Type == intstr.String:
			number = namedPort(owner, port.Port.StrVal, protocol)
		case port.EndPort != nil:
			number = fmt.Sprintf("%d-%d", port.Port.IntVal, *port.EndPort)
		default:
			number = fmt.Sprint(port.Port.IntVal)
		}
		if number != "" {
			lines = append(lines, strings.TrimSpace(match+" "+protocol+" dport "+number+" return"))
		}
	}
	return lines
}

func namedPort(pod *corev1.Pod, name, protocol string) string {
	for _, container := range pod.Spec.Containers {
		for _, port := range container.Ports {
			if port.Name == name && strings.EqualFold(string(port.Protocol), protocol) {
				return fmt.Sprint(port.ContainerPort)
			}
		}
	}
	return ""
}
