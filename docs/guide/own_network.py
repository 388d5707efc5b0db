import torch

from backend.certification.smoothed_classifier import SmoothedClassifier
from backend.classifier.weights import unpack
from backend.datasets import find_dataset
from backend.home import PRECOMPUTED, runs_root
from backend.pipeline import choose_device
from backend.run import find_run
from backend.spec import Certification

device, mnist = choose_device(), find_dataset("mnist")
run = find_run("mnist-lenet-consistency-s0.5-l5-seed0-abfa8ccd", runs_root(), PRECOMPUTED)
network = unpack(run.weights(), run.spec.architecture, mnist, device)

images = mnist.load(train=False).images[:8]  # uint8 (8, 1, 28, 28)
images = torch.from_numpy(images).float() / mnist.scale  # in [0, 1], as the network takes them
smoothed = SmoothedClassifier(network, classes=10, sigma=0.5, device=device, seed=0)
for finished in smoothed.certify(images, list(range(8)), Certification(n=10_000)):
    for i, look in finished.items():
        print(i, look.predict, look.radius)  # −1 where it abstains
