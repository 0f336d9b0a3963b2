"""Rows as the learners see them: features, treatments, strata and outcomes as plain columns."""
