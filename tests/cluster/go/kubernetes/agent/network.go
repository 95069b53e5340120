package main

import (
	"context"
	"encoding/json"
	"fmt"
	"log"
	"os"
	"path/filepath"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/labels"
)

const (
	cniConfig     = host + "/etc/cni/net.d/10-agent.conflist"
	serviceSubnet = "10.96.0.0/16" // kind's own default
)

// network configures the runtime for this node's part of the pod network and routes the parts of the other nodes.
func (a *agent) network(ctx context.Context) error {
	nodes, err := a.nodes.List(labels.Everything())
	if err != nil {
		return err
	}
	for _, node := range nodes {
		address := internalIP(node)
		if node.Spec.PodCIDR == "" || address == "" {
			continue // its controller has not come to it yet
		}
		if node.Name != a.node {
			// Again in every round: a node that comes back with another address replaces its route.
			if _, err := run(ctx, "", "ip", "route", "replace", node.Spec.PodCIDR, "via", address); err != nil {
				return err
			}
			continue
		}
		if err := writeConfig(node.Spec.PodCIDR); err != nil {
			return err
		}
	}
	return serviceRoute(ctx)
}

// serviceRoute lets processes on the node itself reach Services (the API server a webhook, for one) where the node has
// no default route: the kernel looks for a route before kube-proxy's rules replace the address.
func serviceRoute(ctx context.Context) error {
	routes, err := run(ctx, "", "ip", "-4", "route", "show", "default")
	if err != nil || strings.TrimSpace(routes) != "" {
		return err
	}
	_, err = run(ctx, "", "ip", "route", "replace", serviceSubnet, "dev", "eth0")
	return err
}

func internalIP(node *corev1.Node) string {
	for _, address := range node.Status.Addresses {
		if address.Type == corev1.NodeInternalIP {
			return address.Address
		}
	}
	return ""
}

// writeConfig tells the container runtime how to connect a pod. Each pod has a link of its own to the node (ptp, no
// bridge), so what goes from pod to pod is forwarded by the node, where the policies are enforced.
func writeConfig(podCIDR string) error {
	config, err := json.Marshal(map[string]any{
		"cniVersion": "1.0.0",
		"name":       "agent",
		"plugins": []any{
			map[string]any{
				"type": "ptp",
				"ipam": map[string]any{
					"type":   "host-local",
					"ranges": []any{[]any{map[string]string{"subnet": podCIDR}}},
					"routes": []any{map[string]string{"dst": "0.0.0.0/0"}},
				},
			},
			map[string]any{"type": "portmap", "capabilities": map[string]bool{"portMappings": true}},
		},
	})
	if err != nil {
		return err
	}
	if present, err := os.ReadFile(cniConfig); err == nil && string(present) == string(config) {
		return nil
	}
	if err := os.MkdirAll(filepath.Dir(cniConfig), 0o755); err != nil {
		return err
	}
	// The runtime watches the folder: it must never read half a file.
	if err := os.WriteFile(cniConfig+".new", config, 0o644); err != nil {
		return err
	}
	log.Printf("pods of this node: %s", podCIDR)
	return os.Rename(cniConfig+".new", cniConfig)
}

// masquerade gives traffic that leaves the pod network the node's address, as nothing outside has a route to a pod.
func (a *agent) masquerade() string {
	return fmt.Sprintf(`table ip agent_masquerade {
	chain postrouting {
		type nat hook postrouting priority srcnat; policy accept;
		ip saddr %[1]s ip daddr != %[1]s masquerade
	}
}
`, a.podSubnet)
}
