; extensions: .sql .ddl .pgsql .psql
; Tables and views are the classes of a schema, triggers its functions.
(statement
  (create_table
    [(keyword_table) (keyword_exists)] . (object_reference schema: (_)? @scope name: (_) @name)
    [(column_definitions) (create_query)]? @body)) @definition.class
(statement
  (create_view
    [(keyword_view) (keyword_exists)] . (object_reference schema: (_)? @scope name: (_) @name)
    (keyword_as)? @body)) @definition.class
(statement
  (create_materialized_view
    [(keyword_view) (keyword_exists)] . (object_reference schema: (_)? @scope name: (_) @name)
    (keyword_as)? @body)) @definition.class
(statement
  (create_function
    (keyword_function) . (object_reference schema: (_)? @scope name: (_) @name)
    (function_body)? @body)) @definition.function
(statement
  (create_trigger
    [(keyword_trigger) (keyword_exists)] . (object_reference schema: (_)? @scope name: (_) @name))) @definition.function
(statement (create_type (keyword_type) . (object_reference schema: (_)? @scope name: (_) @name))) @definition.type

(invocation (object_reference name: (identifier) @reference.call))
