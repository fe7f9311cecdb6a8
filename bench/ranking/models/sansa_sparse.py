"""SANSA: EASE by a sparse approximate inverse (Spišák et al. 2023), for large catalogues."""

from typing import Any

from sansa import SANSA, ICFGramianFactorizerConfig, SANSAConfig, UMRUnitLowerTriangleInverterConfig
from scipy.sparse import csr_matrix


def fit(rows: Any, settings: dict[str, Any], seed: int) -> Any:
    """Scores are those of its `forward`; of a user's own items they say nothing, and these are left out anyway."""
    matrix = csr_matrix((rows.values, (rows.users, rows.items)), rows.shape)
    factorizer, inverter = ICFGramianFactorizerConfig(), UMRUnitLowerTriangleInverterConfig(scans=1, finetune_steps=5)
    model = SANSA(SANSAConfig(settings["l2"], settings["weight_matrix_density"], factorizer, inverter))
    model.fit(matrix)
    return lambda users: model.forward(matrix[users]).toarray()
