"""What a flow is made of: planning, and thin Prefect tasks around calls into minority/ and datasets/.

The only room that knows both libraries.
"""
