"""The field's words, each in a sentence or two: `help` of the widgets that use them, and a table of the Guide."""

TERMS = {
    "smoothed classifier": "What a network answers most often when Gaussian noise is added to the image. The certificates speak of it, "
    "not of the network itself (the base classifier).",
    "σ": "Standard deviation of the Gaussian noise that is added to images with pixels in [0, 1]. More noise, larger radii, lower accuracy.",
    "λ": "Weight of the regularisation in training. Larger trades accuracy for robustness.",
    "radius": "Certified ℓ2 radius: no change of the image whose ℓ2 norm (root of the sum of squared pixel changes) is smaller can change "
    "the smoothed classifier's answer.",
    "certified accuracy": "Share of test images that are answered correctly with a radius of at least r. An abstention counts as wrong.",
    "ACR": "Average certified radius: the mean over the test images of the radius, counting 0 where the answer is wrong. It grows with n, and easy "
    "images dominate it.",
    "certified accuracy at 0": "Share of images answered correctly and with a certificate, each wrong with probability at most α. Papers call it clean accuracy; the base classifier's own accuracy without noise is another number.",
    "abstention": "No certificate: the votes do not prove that one class has more than half of them.",
    "n": "Number of noisy copies whose votes the bound rests on. More copies, tighter bound; the papers take 100,000.",
    "n0": "Number of other noisy copies, drawn before, that choose the class.",
    "α": "Probability that one certificate is wrong, over the noise that was drawn. 0.001 unless said otherwise.",
    "p_A": "Probability that the network gives the smoothed classifier's class under noise. Votes estimate it; a certificate rests on a lower bound of it.",
    "ceiling": "The largest radius that n votes out of n can certify: σ Φ⁻¹(α^(1/n)).",
    "envelope": "The best of a method's lines at every radius, means over seeds, whatever their σ.",
    "Pareto front": "The runs that no other run beats in both accuracy and robustness.",
    "seed": "Names the random numbers of a run: equal settings and seed give the same run. Runs that differ in it alone show how much chance does.",
    "recipe": "How long and at what learning rate a network is trained. `paper` is that of the papers (90 epochs on MNIST); `quick` is 8 there: a quarter to half an hour on an idle core, with the certificates.",
    "accuracy under noise": "While it is trained: the network's own answers on the noisy images that it is trained on. SmoothAdv attacks those first, and so does SmoothMix with mix_step 1, which lowers it: it compares only within a method.",
    "base classifier": "The network itself. Training and attacks see it; certificates speak of its majority vote under noise, the smoothed classifier.",
    "certificate": "A class, a radius and what they rest on: the votes, n, n0, α and σ. It is wrong with probability at most α.",
    "ℓ2 norm": "Length of a change of an image: the root of the sum of its squared pixel changes, for pixels in [0, 1].",
    "m": "Noise vectors per image in one step of training.",
    "η": "Weight of the entropy of the mean prediction in Consistency; of the mixed term in SmoothMix.",
    "ε": "Largest ℓ2 norm of the attack in SmoothAdv training. It is no certified radius.",
    "any time": "A mode that may be stopped at every moment and is a certificate then: its bounds hold at all looks at once, by spending α over them.",
    "robust at r?": "A mode that decides whether the radius reaches r, often after a few hundred samples; each answer is wrong with probability at most α.",
    "published networks": "Networks of the papers. On the same terms: their released logs, cut down to the n and the images of the runs beside them.",
    "95 % interval": "Would hold the true value in 95 of 100 repetitions with other test images. Of differences between groups of three seeds or more it covers other training seeds too; else, where a page does not say so, it does not.",
}  # fmt: skip
