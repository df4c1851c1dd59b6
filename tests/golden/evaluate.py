"""Writes evaluate.json: kNN classes and a converged logistic regression by independent numpy code in float64.

Features come from a formula, so that the Rust tests make the same ones:
x[i, j] = sin(1 + 0.7 i + 1.3 j + 0.11 i j) + 0.6 cos(2 c + j), c = i mod 3, rounded to f32; queries start at i = 5000.

    python tests/golden/evaluate.py > tests/golden/evaluate.json
"""
import json

import numpy as np

CLASSES, WIDTH, BANK, QUERIES = 3, 8, 240, 60


def features(first, rows):
    i = np.arange(first, first + rows, dtype=np.float64)[:, None]
    j = np.arange(WIDTH, dtype=np.float64)[None, :]
    c = np.mod(i, CLASSES)
    x = np.sin(1 + 0.7 * i + 1.3 * j + 0.11 * i * j) + 0.6 * np.cos(2 * c + j)
    return x.astype(np.float32).astype(np.float64), c[:, 0].astype(int)


def knn(bank, bank_classes, queries, k, temperature):
    bank = bank / np.linalg.norm(bank, axis=1, keepdims=True)
    queries = queries / np.linalg.norm(queries, axis=1, keepdims=True)
    predicted = []
    for query in queries:
        cosines = bank @ query
        nearest = np.argsort(-cosines, kind="stable")[:k]
        sums = np.zeros(CLASSES)
        for position in nearest:
            sums[bank_classes[position]] += np.exp(cosines[position] / temperature)
        predicted.append(int(np.argmax(sums)))
    return predicted


def logistic(x, classes, l2):
    """Full Newton steps on mean cross-entropy + l2/2 |W|^2 with a free bias, until the gradient is below 1e-12."""
    n = len(x)
    x1 = np.hstack([x, np.ones((n, 1))])
    d = x1.shape[1]
    penalty = np.repeat(np.r_[np.full(d - 1, l2), 0.0], CLASSES)  # index: feature * CLASSES + class
    truth = np.eye(CLASSES)[classes]
    w = np.zeros(d * CLASSES)

    def loss_of(w):
        logits = x1 @ w.reshape(d, CLASSES)
        logits = logits - logits.max(1, keepdims=True)
        log_p = logits - np.log(np.exp(logits).sum(1, keepdims=True))
        return -(truth * log_p).sum() / n + 0.5 * (penalty * w * w).sum(), np.exp(log_p)

    for _ in range(100):
        loss, p = loss_of(w)
        gradient = (x1.T @ (p - truth) / n).reshape(-1) + penalty * w
        if np.abs(gradient).max() < 1e-12:
            break
        hessian = np.zeros((d * CLASSES, d * CLASSES))
        for a in range(CLASSES):
            for b in range(CLASSES):
                weight = p[:, a] * ((a == b) - p[:, b])
                hessian[a::CLASSES, b::CLASSES] = (x1 * weight[:, None]).T @ x1 / n
        # The sum of all biases is free: a tiny ridge on it fixes one of the equal minima.
        hessian += np.diag(penalty + 1e-12)
        w = w - np.linalg.solve(hessian, gradient)
    else:
        raise SystemExit("Newton's method has not converged")
    return loss, w.reshape(d, CLASSES)


bank, bank_classes = features(0, BANK)
queries, query_classes = features(5000, QUERIES)
mean, deviation = bank.mean(0), bank.std(0)
probes = []
for l2 in [1e-1, 1e-3, 1e-5]:
    loss, w = logistic((bank - mean) / deviation, bank_classes, l2)
    logits = (queries - mean) / deviation @ w[:-1] + w[-1]
    top = np.sort(logits, 1)
    assert (top[:, -1] - top[:, -2]).min() > 1e-4, "a query on the border would make the test depend on rounding"
    probes.append({"l2": l2, "loss": loss, "predicted": logits.argmax(1).tolist()})
print(json.dumps({
    "knn": [{"k": k, "temperature": t, "predicted": knn(bank, bank_classes, queries, k, t)}
            for k, t in [(1, 0.1), (5, 0.1), (20, 0.1), (200, 0.1), (20, 1.0)]],
    "query_classes": query_classes.tolist(),
    "probes": probes,
}, indent=None))
