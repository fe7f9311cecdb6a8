"""implicit: alternating least squares for implicit feedback (Hu, Koren, Volinsky 2008)."""

from typing import Any

from implicit.als import AlternatingLeastSquares
from scipy.sparse import csr_matrix


def fit(rows: Any, settings: dict[str, Any], seed: int) -> Any:
    """Confidence is 1 + alpha * value, as the library has it."""
    matrix = csr_matrix((rows.values, (rows.users, rows.items)), rows.shape)
    model = AlternatingLeastSquares(**settings, random_state=seed, use_gpu=False)
    model.fit(matrix, show_progress=False)
    return lambda users: model.user_factors[users] @ model.item_factors.T
