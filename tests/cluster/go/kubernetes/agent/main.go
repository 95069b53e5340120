// Agent is all that a node of the test cluster needs beside Kubernetes itself: a pod network over the nodes,
// NetworkPolicies enforced with nftables, and the storage class `standard` on the node's own disk.
//
// One runs on every node (hostNetwork, with the node's file system at /host). It looks at the whole state after every
// change and brings its own node in line with it; nothing is kept between two rounds but what was written last.
package main

import (
	"bytes"
	"context"
	"fmt"
	"log"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	corelisters "k8s.io/client-go/listers/core/v1"
	networklisters "k8s.io/client-go/listers/networking/v1"
	storagelisters "k8s.io/client-go/listers/storage/v1"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/cache"
)

const (
	host     = "/host"
	account  = "/var/run/secrets/kubernetes.io/serviceaccount/"
	settle   = 50 * time.Millisecond // several changes at once (a rollout) make one round
	interval = 10 * time.Second      // a round without a change: repairs what something else took away
)

type agent struct {
	node       string
	podSubnet  string
	client     kubernetes.Interface
	nodes      corelisters.NodeLister
	pods       corelisters.PodLister
	namespaces corelisters.NamespaceLister
	claims     corelisters.PersistentVolumeClaimLister
	volumes    corelisters.PersistentVolumeLister
	classes    storagelisters.StorageClassLister
	policies   networklisters.NetworkPolicyLister
	ruleset    string // written last
}

func main() {
	log.SetFlags(log.Ltime | log.Lmicroseconds)
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	// The API server is reached at its own address: its Service works only once kube-proxy does, which needs a network.
	client, err := kubernetes.NewForConfig(&rest.Config{
		Host:            "https://" + os.Getenv("CONTROL_PLANE_ENDPOINT"),
		BearerTokenFile: account + "token",
		TLSClientConfig: rest.TLSClientConfig{CAFile: account + "ca.crt"},
		QPS:             50,
		Burst:           100,
	})
	if err != nil {
		log.Fatal(err)
	}
	changed := make(chan struct{}, 1)
	a := watch(ctx, client, changed)
	a.node, a.podSubnet = os.Getenv("NODE_NAME"), os.Getenv("POD_SUBNET")
	timer := time.NewTicker(interval)
	for {
		a.round(ctx)
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
		case <-changed:
			time.Sleep(settle)
			select {
			case <-changed:
			default:
			}
		}
	}
}

// watch fills the agent's listers and sends to changed after each change of what they list.
func watch(ctx context.Context, client kubernetes.Interface, changed chan<- struct{}) *agent {
	factory := informers.NewSharedInformerFactory(client, 0)
	core, storage, network := factory.Core().V1(), factory.Storage().V1(), factory.Networking().V1()
	a := &agent{
		client:     client,
		nodes:      core.Nodes().Lister(),
		pods:       core.Pods().Lister(),
		namespaces: core.Namespaces().Lister(),
		claims:     core.PersistentVolumeClaims().Lister(),
		volumes:    core.PersistentVolumes().Lister(),
		classes:    storage.StorageClasses().Lister(),
		policies:   network.NetworkPolicies().Lister(),
	}
	tell := func() {
		select {
		case changed <- struct{}{}:
		default:
		}
	}
	handler := cache.ResourceEventHandlerFuncs{
		AddFunc:    func(any) { tell() },
		UpdateFunc: func(any, any) { tell() },
		DeleteFunc: func(any) { tell() },
	}
	for _, informer := range []cache.SharedIndexInformer{
		core.Nodes().Informer(), core.Pods().Informer(), core.Namespaces().Informer(),
		core.PersistentVolumeClaims().Informer(), core.PersistentVolumes().Informer(),
		storage.StorageClasses().Informer(), network.NetworkPolicies().Informer(),
	} {
		if _, err := informer.AddEventHandler(handler); err != nil {
			log.Fatal(err)
		}
	}
	factory.Start(ctx.Done())
	factory.WaitForCacheSync(ctx.Done())
	return a
}

func (a *agent) round(ctx context.Context) {
	for name, step := range map[string]func(context.Context) error{
		"network": a.network, "policies": a.enforce, "volumes": a.provision,
	} {
		if err := step(ctx); err != nil {
			log.Printf("%s: %v", name, err)
		}
	}
}

// run executes a program of the node's own, in the node's own file system.
func run(ctx context.Context, input string, argv ...string) (string, error) {
	command := exec.CommandContext(ctx, argv[0], argv[1:]...)
	command.Path = "/usr/sbin/" + filepath.Base(argv[0])
	command.Err = nil // the look-up above was in the agent's image, which has nothing but the agent
	command.Dir = "/"
	command.SysProcAttr = &syscall.SysProcAttr{Chroot: host}
	command.Stdin = bytes.NewBufferString(input)
	output, err := command.CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("%v: %w: %s", argv, err, output)
	}
	return string(output), nil
}
