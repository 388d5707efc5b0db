-- The results store: what every page reads. Disposable: `python -m backend publish` builds it from the run folders.
CREATE TABLE IF NOT EXISTS meta (schema_sha256 VARCHAR, published_sha256 VARCHAR);

-- One row a finished run, with what is asked of it most often already worked out from its certificates.
CREATE TABLE IF NOT EXISTS runs (
    run_id VARCHAR PRIMARY KEY,
    folder VARCHAR, -- from home or checkout on: backend/home.py
    fingerprint VARCHAR,
    source VARCHAR, dataset VARCHAR, architecture VARCHAR, method VARCHAR,
    sigma DOUBLE, lam DOUBLE, hyper VARCHAR, seed BIGINT,
    recipe VARCHAR, -- its name, with what it does otherwise than the one of that name: equal words, equal training
    epochs INTEGER, weights_dtype VARCHAR, precision VARCHAR, train_precision VARCHAR, weights_of VARCHAR,
    weights_sha256 VARCHAR,
    n BIGINT, n0 BIGINT, alpha DOUBLE, mode VARCHAR, image_set VARCHAR, ceiling DOUBLE,
    images BIGINT, samples DOUBLE, acr DOUBLE, acr_se DOUBLE, at_ceiling DOUBLE, radius_digits INTEGER, certified_accuracy_0 DOUBLE, abstention DOUBLE,
    missing_here INTEGER, -- classes answered hardly ever, by its own rows: under noise at the end of training, or where it is certified
    missing_classes INTEGER, -- the most of that among the runs of this network: above 0, training collapsed
    device VARCHAR, git_commit VARCHAR, train_seconds DOUBLE, epoch_seconds DOUBLE, certify_seconds DOUBLE -- of an epoch: the median
);

CREATE TABLE IF NOT EXISTS certificates (
    run_id VARCHAR, idx INTEGER, label INTEGER, predict INTEGER, radius DOUBLE, top_count BIGINT, n BIGINT, stop VARCHAR
);

-- Certified accuracy at radii 0, 0.01, 0.02, … up to the ceiling, as the number of images that reach each.
CREATE TABLE IF NOT EXISTS curves (run_id VARCHAR, counts INTEGER[]);

-- What the papers report. A row with several seeds: mean and standard deviation (n - 1); no curve then.
CREATE TABLE IF NOT EXISTS published (
    dataset VARCHAR, architecture VARCHAR, method VARCHAR, sigma DOUBLE, lam DOUBLE,
    acr DOUBLE, acr_sd DOUBLE, seeds INTEGER, n BIGINT, alpha DOUBLE, images INTEGER, source VARCHAR, reference VARCHAR,
    certified_accuracy_0 DOUBLE
);

-- Figures of single published runs, from their per-example logs: as logged, and as they would be at our n and images, on average over
-- every choice of so many of their samples; acr_sampling_sd is what one choice makes of it (0 as logged: that was one).
CREATE TABLE IF NOT EXISTS published_runs (
    dataset VARCHAR, architecture VARCHAR, method VARCHAR, sigma DOUBLE, lam DOUBLE, hyper VARCHAR, seed BIGINT,
    mode VARCHAR, n BIGINT, n0 BIGINT, alpha DOUBLE, image_set VARCHAR, images INTEGER, recomputed BOOLEAN,
    acr DOUBLE, acr_sampling_sd DOUBLE, certified_accuracy_0 DOUBLE, abstention DOUBLE, per_unit DOUBLE, curve VARCHAR
);
