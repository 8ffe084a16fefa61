"""The HTTP server: OpenAI's protocol over one model that many clients share.

`scheduler` decodes, `app` and the files beside it speak HTTP. Needs the extra `[server]`.
"""
