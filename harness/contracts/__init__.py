"""Is this one document lawful? A contract judges one document and knows no history (DESIGN, section 1).

    library      reads specs/ once: the manifest of all registries
    reading      bytes to a document, bounded, every oddity a finding
    schema       the JSON Schemas, generated from the manifest
    owner        the owner's view, derived from the document
    csp_status   every rule of ``GET /api/v1/status``
    golden       one document against a fixture, under declared tolerances
    validate     the command
    generate     writes every generated file, or says which one has drifted
"""
