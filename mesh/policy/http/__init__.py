"""L7 authorization: Istio's AuthorizationPolicy on requests (security/v1beta1), beside the L4 one of `mesh.policy`.

The same vocabulary: a Permit or a Denial that names the policy and the clause that decided.
"""
