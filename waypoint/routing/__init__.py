"""What becomes of a request, decided without IO: paths -> tables -> filters -> retry.

    read_target(method, target, authority)    -> Target | BadTarget       paths: the one reading of a request's path
    compile_tables(resources, previous)       -> Tables                   tables: once per configuration
    tables.policies(service)                  -> HttpPolicies             for mesh.policy.http.evaluate_http(...)
    tables.port(service, port)                -> PortTable | None
    port.choose(request, client, chance)      -> Forward | Reply          rules, filters, weights, mirrors
    forward.answer(headers)                   -> headers                  filters of the response
    decide(policy, attempt, outcome, chance)  -> Again | Stop             retry

`chance` is a random number in [0, 1) of the caller's; times are the caller's too.
"""
