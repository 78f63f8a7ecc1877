; extensions: .kt .kts
; interpreters: kotlin kotlinc
(class_declaration (type_identifier) @name [(class_body) (enum_class_body)]? @body) @definition.class
(object_declaration (type_identifier) @name (class_body)? @body) @definition.class
; An unnamed one is none: its members are called by the name of the class.
(companion_object (type_identifier) @name (class_body)? @body) @definition.class
(function_declaration (simple_identifier) @name (function_body)? @body) @definition.function
(source_file
  (function_declaration
    receiver: (receiver_type (user_type . (type_identifier) @scope))
    (simple_identifier) @name
    (function_body)? @body) @definition.method)
(secondary_constructor "constructor" @name (constructor_delegation_call)? @body) @definition.method
(type_alias . (type_identifier) @name) @definition.type

(call_expression . (simple_identifier) @reference.call)
(call_expression
  . (navigation_expression (navigation_suffix (simple_identifier) @reference.call) .))
(delegation_specifier
  (constructor_invocation (user_type (type_identifier) @reference.call .)))

(import_header) @import
