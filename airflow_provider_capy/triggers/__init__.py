"""The provider's triggers, one module per noun; nothing is imported here so that parsing a DAG stays cheap."""
