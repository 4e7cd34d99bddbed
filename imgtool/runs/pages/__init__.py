"""Pages (HTML) that stand alone: nothing is loaded, no script runs, and all that comes from elsewhere is escaped.

``parts``     what all pages are made of: document, style, table, bar
``chart``     throughput over time
``overview``  waves, machines, failures: ``jobs --html``, the dashboard, the report of a batch
``job``       what was done to one machine: ``migrate --report``
"""
