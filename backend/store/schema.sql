-- The results store: what every page reads. Disposable: `python -m backend publish` builds it from the run folders.
CREATE TABLE IF NOT EXISTS meta (schema_sha256 VARCHAR);

-- One row a finished run, with what is asked of it most often already worked out from its certificates.
CREATE TABLE IF NOT EXISTS runs (
    run_id VARCHAR PRIMARY KEY,
    folder VARCHAR, fingerprint VARCHAR,
    source VARCHAR, dataset VARCHAR, architecture VARCHAR, method VARCHAR,
    sigma DOUBLE, lam DOUBLE, hyper VARCHAR, seed BIGINT,
    recipe VARCHAR, epochs INTEGER, weights_dtype VARCHAR, precision VARCHAR, weights_of VARCHAR,
    n BIGINT, n0 BIGINT, alpha DOUBLE, mode VARCHAR, image_set VARCHAR, ceiling DOUBLE,
    images BIGINT, samples DOUBLE, acr DOUBLE, certified_accuracy_0 DOUBLE, abstention DOUBLE,
    missing_classes INTEGER, -- answered hardly ever by the end of training: above 0, it collapsed
    device VARCHAR, git_commit VARCHAR, train_seconds DOUBLE, certify_seconds DOUBLE
);

CREATE TABLE IF NOT EXISTS certificates (
    run_id VARCHAR, idx INTEGER, label INTEGER, predict INTEGER, radius DOUBLE, top_count BIGINT, n BIGINT, stop VARCHAR
);

CREATE TABLE IF NOT EXISTS epochs (
    run_id VARCHAR, epoch INTEGER, seconds DOUBLE, images_per_second DOUBLE, lr DOUBLE, loss DOUBLE, accuracy DOUBLE, terms VARCHAR
);

-- What the papers report: mean and standard deviation (n - 1) over seeds.
CREATE TABLE IF NOT EXISTS published (
    dataset VARCHAR, architecture VARCHAR, method VARCHAR, sigma DOUBLE, lam DOUBLE,
    acr DOUBLE, acr_sd DOUBLE, seeds INTEGER, n BIGINT, alpha DOUBLE, images INTEGER, source VARCHAR, reference VARCHAR
);
