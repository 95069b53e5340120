// A CoreDNS with only the plugins that a cluster's own DNS needs.
package main

import (
	"context"

	"github.com/coredns/caddy"
	"github.com/coredns/coredns/core/dnsserver"
	"github.com/coredns/coredns/coremain"
	"github.com/coredns/coredns/plugin"
	"github.com/miekg/dns"

	_ "github.com/coredns/coredns/plugin/cache"
	_ "github.com/coredns/coredns/plugin/errors"
	_ "github.com/coredns/coredns/plugin/health"
	_ "github.com/coredns/coredns/plugin/hosts"
	_ "github.com/coredns/coredns/plugin/kubernetes"
	_ "github.com/coredns/coredns/plugin/loadbalance"
	_ "github.com/coredns/coredns/plugin/log"
	_ "github.com/coredns/coredns/plugin/loop"
	_ "github.com/coredns/coredns/plugin/metrics"
	_ "github.com/coredns/coredns/plugin/ready"
	_ "github.com/coredns/coredns/plugin/reload"
)

// nowhere takes the place of `forward`, which kubeadm's configuration ends with: in this cluster no question may leave
// the machine, so a name from outside it does not exist. Without this, each such name would wait for a timeout.
type nowhere struct{}

func (nowhere) Name() string { return "forward" }

func (nowhere) ServeDNS(_ context.Context, writer dns.ResponseWriter, question *dns.Msg) (int, error) {
	answer := new(dns.Msg).SetRcode(question, dns.RcodeNameError)
	return dns.RcodeNameError, writer.WriteMsg(answer)
}

func main() {
	plugin.Register("forward", func(controller *caddy.Controller) error {
		for controller.Next() {
			controller.RemainingArgs()
			for controller.NextBlock() {
				controller.RemainingArgs()
			}
		}
		dnsserver.GetConfig(controller).AddPlugin(func(plugin.Handler) plugin.Handler { return nowhere{} })
		return nil
	})
	coremain.Run()
}
