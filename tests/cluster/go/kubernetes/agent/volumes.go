package main

import (
	"context"
	"errors"
	"fmt"
	"log"
	"os"

	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
)

const (
	provisioner   = "testcluster.goqueue.dev/local-folder"
	volumeFolder  = "/var/local-folders/"
	provisionedBy = "pv.kubernetes.io/provisioned-by"
	selectedNode  = "volume.kubernetes.io/selected-node"
)

// provision makes a volume for each claim whose first pod the scheduler wants on this node, and removes those of this
// node whose claim is gone. A volume is a folder on the node, so its pods always run on this node.
func (a *agent) provision(ctx context.Context) error {
	claims, err := a.claims.List(labels.Everything())
	if err != nil {
		return err
	}
	var failed []error
	for _, claim := range claims {
		class := a.classOf(claim)
		if class == nil || claim.Status.Phase != corev1.ClaimPending || claim.Annotations[selectedNode] != a.node {
			continue
		}
		failed = append(failed, a.makeVolume(ctx, claim, class))
	}
	volumes, err := a.volumes.List(labels.Everything())
	if err != nil {
		return err
	}
	for _, volume := range volumes {
		released := volume.Status.Phase == corev1.VolumeReleased && volume.DeletionTimestamp == nil
		ours := volume.Annotations[provisionedBy] == provisioner && volume.Labels[corev1.LabelHostname] == a.node
		if released && ours && volume.Spec.PersistentVolumeReclaimPolicy == corev1.PersistentVolumeReclaimDelete {
			failed = append(failed, a.removeVolume(ctx, volume))
		}
	}
	return errors.Join(failed...)
}

// classOf is the claim's storage class if it is one of this provisioner's.
func (a *agent) classOf(claim *corev1.PersistentVolumeClaim) *storagev1.StorageClass {
	if claim.Spec.StorageClassName == nil {
		return nil
	}
	class, err := a.classes.Get(*claim.Spec.StorageClassName)
	if err != nil || class.Provisioner != provisioner {
		return nil
	}
	return class
}

func (a *agent) makeVolume(
	ctx context.Context, claim *corev1.PersistentVolumeClaim, class *storagev1.StorageClass,
) error {
	name := "pvc-" + string(claim.UID)
	path := volumeFolder + name
	// Open to all: which user the pods run as is not known here. (MkdirAll alone is subject to the umask.)
	if err := os.MkdirAll(host+path, 0o777); err != nil {
		return err
	}
	if err := os.Chmod(host+path, 0o777); err != nil {
		return err
	}
	kind := corev1.HostPathDirectory
	volume := &corev1.PersistentVolume{
		ObjectMeta: metav1.ObjectMeta{
			Name:        name,
			Labels:      map[string]string{corev1.LabelHostname: a.node},
			Annotations: map[string]string{provisionedBy: provisioner},
		},
		Spec: corev1.PersistentVolumeSpec{
			AccessModes:                   claim.Spec.AccessModes,
			Capacity:                      corev1.ResourceList{corev1.ResourceStorage: claim.Spec.Resources.Requests[corev1.ResourceStorage]},
			StorageClassName:              class.Name,
			PersistentVolumeReclaimPolicy: *class.ReclaimPolicy,
			PersistentVolumeSource: corev1.PersistentVolumeSource{
				HostPath: &corev1.HostPathVolumeSource{Path: path, Type: &kind},
			},
			ClaimRef: &corev1.ObjectReference{
				APIVersion: "v1", Kind: "PersistentVolumeClaim",
				Namespace: claim.Namespace, Name: claim.Name, UID: claim.UID,
			},
			NodeAffinity: &corev1.VolumeNodeAffinity{Required: &corev1.NodeSelector{
				NodeSelectorTerms: []corev1.NodeSelectorTerm{{MatchExpressions: []corev1.NodeSelectorRequirement{
					{Key: corev1.LabelHostname, Operator: corev1.NodeSelectorOpIn, Values: []string{a.node}},
				}}},
			}},
		},
	}
	_, err := a.client.CoreV1().PersistentVolumes().Create(ctx, volume, metav1.CreateOptions{})
	if apierrors.IsAlreadyExists(err) {
		return nil // made in an earlier round; its claim has not been bound yet
	}
	if err == nil {
		log.Printf("made volume %s for %s/%s", name, claim.Namespace, claim.Name)
	}
	return err
}

func (a *agent) removeVolume(ctx context.Context, volume *corev1.PersistentVolume) error {
	// The path is made from the name, not read from the volume: nothing else can be removed by it.
	if err := os.RemoveAll(host + volumeFolder + volume.Name); err != nil {
		return fmt.Errorf("remove %s: %w", volume.Name, err)
	}
	err := a.client.CoreV1().PersistentVolumes().Delete(ctx, volume.Name, metav1.DeleteOptions{})
	if err == nil {
		log.Printf("removed volume %s", volume.Name)
	}
	if apierrors.IsNotFound(err) {
		return nil
	}
	return err
}
